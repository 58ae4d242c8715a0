import Kernel

/// A wait without a thread: a callback when an event is set. Once only.
///
/// It stands in the event's list like a thread that waits, and is let go like one: an automatic event is reset by it.
/// (I1.3) The callback runs on the thread that sets the event, without a lock, so it is to be short: it hands work on.
/// Usable from any thread. Win32 counterpart: what lies behind `SetThreadpoolWait`, a wait packet of a completion port
/// (`NtAssociateWaitCompletionPacket`).
public final class RegisteredWait: @unchecked Sendable {
    // Guarded by `Dispatcher.lock`.
    private let wait: Wait

    /// Begins to wait; nil when the event is set already. Then that has ended the wait, and `signalled` is not called.
    public init?(_ event: Event, signalled: @escaping @Sendable () -> Void) {
        wait = Wait(event, signalled)
        let wait = wait
        let isOver = Dispatcher.lock.locked {
            event.enter(wait)
            wait.endIfSatisfied()
            return wait.result != nil
        }
        if isOver { return nil }
    }

    /// Ends the wait.
    ///
    /// - Returns: false when the event has been faster: the callback has been called, or is being called now.
    @discardableResult
    public func cancel() -> Bool {
        Dispatcher.lock.locked {
            if case .signalled = wait.result { return false }
            wait.end(.timedOut)
            return true
        }
    }
}
