import Kernel

/// The per-socket context as it is kept where references are not counted: with a number of its own.
///
/// The number says how many operations may still come back to this context, and it begins at 1: the set-up's own
/// share, so that no early failure can bring it to 0 while first operations are still being posted. The thread
/// that brings it to 0 releases the context, and no other does. (I4.2, I4.3)
///
/// Any thread may call it. The other way, which needs no number, is `Connection`.
public final class CountedContext: Pooled, @unchecked Sendable {
    /// Guarded by the lock of the pool.
    public var link = PoolLink()
    private let lock = Lock()
    // Guarded by the lock.
    private var count = 1
    private var lowest = 1
    private var reason: CloseReason?

    /// A context with the set-up's share.
    public init() {}

    /// Takes a share *before* an operation is posted. If the post fails, `leave` takes it back.
    ///
    /// - Returns: false when the connection is closed or the context released: then nothing may be posted.
    public func enter() -> Bool {
        lock.locked {
            guard count > 0, reason == nil else { return false }
            count += 1
            return true
        }
    }

    /// Gives a share back: the packet has been handled, the post has failed, or the set-up is over.
    ///
    /// - Parameter beforeLooking: Called between the lowering and the look. For tests.
    /// - Returns: true for exactly one caller, the last. The number is lowered and looked at under one lock.
    public func leave(_ beforeLooking: () -> Void = {}) -> Bool {
        lock.locked {
            count -= 1
            lowest = min(lowest, count)
            beforeLooking()
            return count == 0
        }
    }

    /// Notes that the connection is over.
    ///
    /// - Returns: true for exactly one caller, the first: it announces the end. Later reasons are consequences.
    public func close(_ reason: CloseReason) -> Bool {
        lock.locked {
            guard self.reason == nil else { return false }
            self.reason = reason
            return true
        }
    }

    /// How many shares are out, and the lowest that this number has ever been.
    public var shares: (now: Int, lowest: Int) { lock.locked { (count, lowest) } }

    /// Why the connection is over; nil while it is not.
    public var closeReason: CloseReason? { lock.locked { reason } }

    /// Makes a context that comes out of a pool as new.
    public func renew() {
        lock.locked {
            (count, lowest, reason) = (1, 1, nil)
        }
    }
}
