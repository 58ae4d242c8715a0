import Kernel
import Timeline

/// Where posted operations end up when they are done: the smallest thing that deserves to be called a port.
///
/// One thread owns it. That thread alone posts on its handles, waits here, and closes them, so that nothing needs a
/// lock. Chapter 02 builds the real one, for many threads. Win32 counterpart: the queue of a completion port.
public final class FinishedOperations: CompletionTarget, @unchecked Sendable {
    private let driver: Driver
    private var arrived: [Overlapped] = []
    private var isWaiting = false

    /// An empty queue, with a driver of its own.
    ///
    /// - Throws: EMFILE when no descriptor is left.
    public init(driver kind: DriverKind = .standard) throws(SystemError) {
        driver = try Driver.make(kind)
    }

    /// From now on, what is done on `handle` is told here.
    ///
    /// - Throws: EINVAL when it is told elsewhere already.
    public func adopt(_ handle: Handle) throws(SystemError) {
        try handle.associate(with: self, key: 0, driver: driver)
    }

    /// The kernel hands operations over. On the owner's thread, since that is the one that waits and posts.
    public override func take(_ completed: inout CompletionList) {
        while let operation = completed.popFirst() { arrived.append(operation.takeRetainedValue()) }
        // The driver may bring something here in the middle of a wait, and would then wait for more.
        if isWaiting { driver.wake() }
    }

    /// Waits until something is done or the deadline passes, and returns everything that is done, oldest first.
    /// Each of these operations may be posted again.
    public func wait(until deadline: Deadline = .never) -> [Overlapped] {
        var completed = CompletionList()
        // With something at hand, only look: what is done must not wait for what is not.
        isWaiting = true
        driver.poll(for: self, until: arrived.isEmpty ? deadline : .now, &completed)
        isWaiting = false
        take(&completed)
        for operation in arrived {
            Recorder.mark(.dequeued, operation.identity)
            operation.wasDequeued()
        }
        defer { arrived.removeAll(keepingCapacity: true) }
        return arrived
    }

    /// Makes the owner's `wait` return. The only call for other threads.
    public func wake() { driver.wake() }
}
