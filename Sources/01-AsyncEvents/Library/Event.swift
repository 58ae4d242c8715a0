import Kernel

/// Something that threads wait for, and that an operation sets when it completes.
///
/// An event is *set* or *not set*, and stays so until a call changes it (I1.3). Put it into an operation's
/// `event`: posting the operation resets it, completion sets it. Usable from any thread.
/// Win32 counterpart: `CreateEvent`.
public final class Event: Signal, @unchecked Sendable {
    /// What a wait does to the event that ends it.
    public enum Reset: Sendable {
        /// Nothing: the event stays set until `reset()`, and every waiting thread is let go.
        case manual
        /// Resets it: one thread is let go for each `set()`.
        case automatic
    }

    /// What a wait does to this event.
    public let mode: Reset

    // Both are guarded by `Dispatcher.lock`.
    private(set) var state: Bool
    private var waits: [Wait] = []

    /// An event without a wait for it. Win32 counterpart: the second and third argument of `CreateEvent`.
    public init(_ mode: Reset, isSet: Bool = false) {
        self.mode = mode
        state = isSet
    }

    /// Sets the event and ends the waits that it can: all, or with automatic reset the one that has waited
    /// longest. Which waits end is settled in here, so a `reset()` that follows at once takes no turn away.
    /// Win32 counterpart: `SetEvent`, which promises neither.
    public override func set() {
        var calls: [@Sendable () -> Void] = []
        Dispatcher.lock.locked {
            state = true
            for wait in waits where state {
                wait.endIfSatisfied()
                if let call = wait.signalled { calls.append(call) }
            }
        }
        for call in calls { call() }
    }

    /// Takes the event back to *not set*. Win32 counterpart: `ResetEvent`.
    public override func reset() { Dispatcher.lock.locked { state = false } }

    /// Whether the event is set now. Asking changes nothing, but another thread may, right after.
    public var isSet: Bool { Dispatcher.lock.locked { state } }

    // MARK: Under the dispatcher's lock

    /// A wait has ended with this event.
    func consume() { if mode == .automatic { state = false } }

    func enter(_ wait: Wait) { waits.append(wait) }

    func leave(_ wait: Wait) { waits.removeAll { $0 === wait } }
}
