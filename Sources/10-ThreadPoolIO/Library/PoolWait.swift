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
    private var registration: RegisteredWait?
    /// Counts the settings: what is left over from an earlier one is told by its number.
    private var setting = 0
    private var isArmed = false

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
        cancel()
        try pool.ensureThread()
        let number: Int = try pool.monitor.locked { () throws(SystemError) in
            try requireOpen("set a wait")
            setting += 1
            isArmed = true
            return setting
        }
        let new = RegisteredWait(event) { [self] in signalled(number) }
        let needsWake = pool.monitor.locked {
            guard isArmed, setting == number else { return false }
            registration = new
            if !deadline.isNever { pool.timers.insert(self, due: deadline) }
            return pool.isEarlier(latest)
        }
        if needsWake { pool.wake() }
    }

    /// Takes the wait back. A callback that has been announced still comes.
    ///
    /// Win32 counterpart: `SetThreadpoolWait` without an event.
    public func cancel() {
        pool.monitor.locked {
            pool.timers.remove(self)
            // If the event has been faster, its callback is on its way.
            if registration?.cancel() ?? false { isArmed = false }
            registration = nil
        }
    }

    override func disarm() { cancel() }

    /// The event was set: on the thread that set it.
    private func signalled(_ number: Int) {
        let call: Call? = pool.monitor.locked {
            if setting == number {
                isArmed = false
                registration = nil
                pool.timers.remove(self)
            }
            return isClosed || pool.isClosed
                ? nil : Call(object: self, epoch: announce(), key: Result.signalled.rawValue)
        }
        if let call { pool.post(call) }
    }

    override func expire(_ queue: inout TimerQueue) -> Call? {
        // The event may have been faster by a hair: then its callback is on its way, and this is not a time-out.
        guard registration?.cancel() ?? false else { return nil }
        isArmed = false
        registration = nil
        return Call(object: self, epoch: announce(), key: Result.timedOut.rawValue)
    }

    override func called(_ packet: Packet, _ instance: CallbackInstance) {
        callback(instance, Result(rawValue: packet.key)!)
    }
}
