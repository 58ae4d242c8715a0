import Glibc
import Kernel

/// Lines on their way to a screen, a file or a pipe: any thread says something, one thread writes. (I9.7)
///
/// Who says something never waits: not for the screen, not for other lines, and not for a thread that waits for it to end.
/// When there is no room the *oldest* line is dropped and counted, since the last words of a program are the ones that
/// tell; where lines are missing, the reader finds how many. To be stopped last.
///
/// Win32 counterpart: `PostMessage` to the thread of the window, and not `SendMessage`, which waits.
public final class MessageQueue: @unchecked Sendable {
    /// The most lines that wait.
    public let capacity: Int
    private let write: @Sendable (String) -> Void
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var lines = CircularQueue<String>()
    /// Lines dropped since the last one that was written.
    private var missing = 0
    private var isWriting = false
    private var isOpen = true
    private var numbers = Counters()
    private var thread: Kernel.Thread?

    /// What has happened so far.
    public struct Counters: Sendable, Equatable {
        /// Lines that were said, and lines that were written.
        public internal(set) var said = 0, written = 0
        /// Lines that were dropped, since there was no room, or since they came after the end.
        public internal(set) var dropped = 0
    }

    /// Starts the thread that writes.
    ///
    /// - Parameters:
    ///   - capacity: Lines that may wait, at least 1.
    ///   - write: Given one line at a time, with its end. It may block.
    /// - Throws: EAGAIN when the system allows no more threads.
    public init(capacity: Int = 1_024, to write: @escaping @Sendable (String) -> Void) throws(SystemError) {
        precondition(capacity > 0, "a queue has room for a line")
        (self.capacity, self.write) = (capacity, write)
        thread = try Kernel.Thread("messages") { [self] in run() }
    }

    /// What has happened so far.
    public var counters: Counters { monitor.locked { numbers } }

    /// Says a line. It returns at once, from any thread.
    public func say(_ line: String) {
        monitor.locked {
            numbers.said += 1
            guard isOpen else { return numbers.dropped += 1 }
            if lines.count == capacity {
                _ = lines.popFirst()
                missing += 1
                numbers.dropped += 1
            }
            lines.append(line)
            monitor.broadcast()
        }
    }

    /// Takes nothing more, and waits until what was said is written, or until the time is over: a screen that takes nothing
    /// stops nobody.
    ///
    /// - Returns: Lines that were not written: those dropped before are not among them.
    @discardableResult
    public func stop(within patience: Duration = .seconds(1)) -> Int {
        let deadline = Deadline.after(patience)
        let (thread, left) = monitor.locked { () -> (Kernel.Thread?, Int) in
            isOpen = false
            monitor.broadcast()
            while isWriting || !lines.isEmpty || missing > 0, monitor.wait(until: deadline) {}
            let left = lines.count + (isWriting ? 1 : 0)
            while lines.popFirst() != nil { numbers.dropped += 1 }
            missing = 0
            defer { self.thread = nil }
            // One that is stuck in the sink is left behind: it ends when the sink lets it go.
            return (isWriting ? nil : self.thread, left)
        }
        thread?.join()
        return left
    }

    private func run() {
        while let text = next() { write(text) }
    }

    /// The next text; nil at the end.
    private func next() -> String? {
        monitor.locked {
            if isWriting { isWriting = false }
            monitor.broadcast()
            while lines.isEmpty, missing == 0 {
                if !isOpen { return nil }
                monitor.wait()
            }
            isWriting = true
            if missing > 0 {
                defer { missing = 0 }
                return "… \(missing) \(missing == 1 ? "line" : "lines") not shown\n"
            }
            numbers.written += 1
            return lines.popFirst()! + "\n"
        }
    }
}
