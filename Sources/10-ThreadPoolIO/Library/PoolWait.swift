import AsyncEvents
import CompletionPorts
import Kernel

/// A callback when an event is set, or when that has taken too long.
///
/// No thread waits for the event: the wait stands in the event's own list, and what ends it posts the callback. So one
/// pool may wait for thousands. Win32 counterpart: `CreateThreadpoolWait`, and `RegisterWaitForSingleObject` before it.
public final class PoolWait: TimedObject, @unchecked Sendable {
    private let callback: @Sendable (CallbackInstance, Result) -> Void
    // Guarded by the pool's monitor.
    /// Nil when the wait is not set. The one who takes it out makes the call, if there is one to make.
    private var registration: RegisteredWait?
    /// Counts the settings: what is left over from an earlier one is told by its number.
    private var setting = 0

    /// How a wait ended.
    public enum Result: UInt, Sendable {
        /// The event was set. Win32: `WAIT_OBJECT_0`.
        case signalled
        /// The deadline passed first. Win32: `WAIT_TIMEOUT`.
        case timedOut
    }

    /// A wait that is not set.
    public init(
        _ pool: ThreadPool = .shared, group: PoolGroup? = nil,
        _ callback: @escaping @Sendable (CallbackInstance, Result) -> Void
    ) {
        self.callback = callback
        super.init(pool, group)
    }

    /// Waits for an event, once: one call brings one callback, and then the wait has to be set again. A wait that is
    /// already set is taken back first; one whose event has just been faster still brings its callback.
    ///
    /// - Parameter deadline: How long at most.
    /// - Throws: EBADF when it or the pool is closed, EAGAIN without a thread.
    ///
    /// Win32 counterpart: `SetThreadpoolWait`.
    public func set(_ event: Event, until deadline: Deadline = .never) throws(SystemError) {
        let calls = try pool.withThread("set a wait of a closed thread pool") { () throws(SystemError) in
            try requireOpen("set a wait")
            let last = disarm()
            setting += 1
            registration = RegisteredWait(event) { [self, setting] in signalled(setting) }
            guard registration != nil else { return [last, announce(key: Result.signalled.rawValue)] }
            pool.timers.insert(self, due: deadline)
            return [last]
        }
        for case let call? in calls { pool.post(call) }
    }

    /// Takes the wait back. A callback that has been announced still comes.
    ///
    /// Win32 counterpart: `SetThreadpoolWait` without an event.
    public func cancel() {
        if let call = pool.monitor.locked({ disarm() }) { pool.post(call) }
    }

    override func disarm() -> Call? {
        pool.timers.remove(self)
        return take(orElse: nil)
    }

    /// The event was set: on the thread that set it.
    private func signalled(_ number: Int) {
        let call: Call? = pool.monitor.locked {
            // Another thread has noticed that already, and made the call.
            guard setting == number, registration != nil else { return nil }
            return disarm()
        }
        if let call { pool.post(call) }
    }

    override func expire(_ queue: inout TimerQueue) -> Call? { take(orElse: .timedOut) }

    /// Under the monitor: ends the wait, and announces the callback that comes of it. The event may have been faster by
    /// a hair, whatever the reason to end it: then it is *signalled*, and nothing is lost.
    private func take(orElse result: Result?) -> Call? {
        guard let registration else { return nil }
        self.registration = nil
        let outcome = registration.cancel() ? result : .signalled
        return outcome.map { announce(key: $0.rawValue) }
    }

    override func called(_ packet: Packet, _ instance: CallbackInstance) {
        callback(instance, Result(rawValue: packet.key)!)
    }
}
