import CKernel
import Glibc
import Kernel
import Stage

/// A thread that does one step at a time, when it is told: so a schedule is said, not hoped for.
public final class SteppedWorker: @unchecked Sendable {
    /// What traces call it.
    public let name: String
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var step: (@Sendable () -> Void)?
    private var isBusy = false
    private var isEnding = false
    private var id: Int32 = 0
    private var thread: Kernel.Thread?

    /// Starts the thread.
    public init(_ name: String) {
        self.name = name
        thread = startThread("worker \(name)") { [self] in run() }
    }

    /// Has the thread do something; returns at once. The step before has to be over.
    public func begin(_ step: @escaping @Sendable () -> Void) {
        monitor.locked {
            precondition(!isBusy, "worker \(name) is still busy with its last step")
            isBusy = true
            self.step = step
            monitor.broadcast()
        }
    }

    /// Whether the step is over.
    public var isDone: Bool { monitor.locked { !isBusy } }

    /// Waits until the step is over; false if it was not in time.
    @discardableResult
    public func finish(within patience: Duration = Gate.patience) -> Bool {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while isBusy {
                if !monitor.wait(until: deadline) { return !isBusy }
            }
            return true
        }
    }

    /// Whether the thread is in the middle of a step and waits there for something.
    public var isAsleep: Bool {
        let asked = monitor.locked { isBusy && step == nil ? id : 0 }
        return asked != 0 && Kernel.Thread.state(of: asked) == .blocked && !isDone
    }

    /// Whether it waits for something that does not come soon: it has not run between two looks. A short wait, for a
    /// lock or a page, is not meant.
    public var isFastAsleep: Bool {
        let before = SteppedWorker.timesRun(monitor.locked { id })
        guard isAsleep else { return false }
        usleep(SteppedWorker.betweenLooks)
        return isAsleep && SteppedWorker.timesRun(monitor.locked { id }) == before
    }

    /// Microseconds between two looks. Under a sanitizer a thread may be held up for longer.
    private static let betweenLooks: UInt32 = isSanitized ? 5_000 : 500

    /// How long and how often the system has let a thread run.
    private static func timesRun(_ thread: Int32) -> [UInt8] {
        let file = ck_open("/proc/self/task/\(thread)/schedstat", O_RDONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return [] }
        defer { close(file) }
        var buffer = [UInt8](repeating: 0, count: 128)
        let count = read(file, &buffer, buffer.count)
        return Array(buffer.prefix(max(0, count)))
    }

    /// Ends the thread, and waits for it. The last step has to be over, or to come to its end: a thread whose step does not
    /// is left behind, and that is said.
    public func end() {
        monitor.locked {
            isEnding = true
            monitor.broadcast()
        }
        if finish() {
            thread?.join()
        } else {
            complain("worker \(name) has not come back from its last step")
        }
        thread = nil
    }

    private func run() {
        monitor.locked { id = Kernel.Thread.currentID }
        while let step = next() {
            step()
            monitor.locked {
                isBusy = false
                monitor.broadcast()
            }
        }
    }

    private func next() -> (@Sendable () -> Void)? {
        monitor.locked {
            while step == nil && !isEnding { monitor.wait() }
            defer { step = nil }
            return step
        }
    }
}
