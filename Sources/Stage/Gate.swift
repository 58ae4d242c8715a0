import Glibc
import Kernel

/// Holds threads back until something has happened: it opens once, for good.
///
/// With a gate, a test says in which order two threads do what they do. Every wait is bounded.
public final class Gate: @unchecked Sendable {
    /// How long a wait lasts at most, unless told otherwise.
    public static let patience = Duration.seconds(isSanitized ? 30 : 10)

    private let monitor = Monitor()
    private var missing: Int  // under the monitor

    /// A gate that opens at the `count`th call of ``open()``.
    public init(count: Int = 1) { missing = count }

    /// Opens the gate, or brings it one step nearer to it. More calls than needed do nothing.
    public func open() {
        monitor.locked {
            missing -= 1
            if missing == 0 { monitor.broadcast() }
        }
    }

    /// Whether the gate is open.
    public var isOpen: Bool { monitor.locked { missing <= 0 } }

    /// Waits until the gate is open.
    /// - Returns: `false` if it was not open in time.
    @discardableResult
    public func pass(within patience: Duration = patience) -> Bool {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while missing > 0 {
                if !monitor.wait(until: deadline) { return missing <= 0 }
            }
            return true
        }
    }
}

/// A place where a fixed number of threads wait for each other, again and again.
public final class Barrier: @unchecked Sendable {
    private let count: Int
    private let monitor = Monitor()
    private var arrived = 0  // under the monitor, like what follows
    private var round = 0

    /// A barrier for `count` threads.
    public init(_ count: Int) { self.count = count }

    /// Waits until all threads have come.
    /// - Returns: `false` if they had not come in time; the round then still lacks this thread.
    @discardableResult
    public func arrive(within patience: Duration = Gate.patience) -> Bool {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            arrived += 1
            if arrived == count {
                arrived = 0
                round += 1
                monitor.broadcast()
                return true
            }
            let own = round
            while round == own {
                if monitor.wait(until: deadline) || round != own { continue }
                arrived -= 1
                return false
            }
            return true
        }
    }
}
