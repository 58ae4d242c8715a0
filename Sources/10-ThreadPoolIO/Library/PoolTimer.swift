import CompletionPorts
import Kernel

/// A callback at a time, or again and again.
///
/// There is no thread for it: a thread of the pool that waits for packets waits no longer than until the next timer is
/// due. (I10.4) Win32 counterpart: `CreateThreadpoolTimer`.
public final class PoolTimer: TimedObject, @unchecked Sendable {
    private let callback: @Sendable (CallbackInstance) -> Void
    // Guarded by the pool's monitor.
    private var period: Duration?
    private var window = Duration.zero

    /// A timer that is not set.
    public init(
        _ pool: ThreadPool = .shared, group: PoolGroup? = nil,
        _ callback: @escaping @Sendable (CallbackInstance) -> Void
    ) {
        self.callback = callback
        super.init(pool, group)
    }

    /// Whether a callback is still to be announced.
    public var isSet: Bool { pool.monitor.locked { isQueued } }

    /// Sets the timer, again if it is set already.
    ///
    /// - Parameters:
    ///   - due: When the callback is announced, at the earliest. Never before.
    ///   - period: From then on again after each such time; nil for once. What is late is not made up for: there is at
    ///     most one callback for each period. Must be above zero.
    ///   - window: By how much it may be late on purpose, so that several timers need only one wake-up.
    /// - Throws: EINVAL for a period that is none, EBADF when it or the pool is closed, EAGAIN without a thread.
    ///
    /// Win32 counterpart: `SetThreadpoolTimer`.
    public func set(
        due: Deadline, period: Duration? = nil, window: Duration = .zero
    ) throws(SystemError) {
        if let period, period <= .zero { throw SystemError.invalid("set a timer with a period of \(period)") }
        try pool.withThread("set a timer of a closed thread pool") { () throws(SystemError) in
            try requireOpen("set a timer")
            self.period = period
            self.window = window
            pool.timers.insert(self, due: due, window: window)
        }
    }

    /// The same, counted from now.
    public func set(
        after delay: Duration, period: Duration? = nil, window: Duration = .zero
    ) throws(SystemError) {
        try set(due: .after(delay), period: period, window: window)
    }

    /// Takes the timer back. A callback that has been announced still comes; `waitForCallbacks` waits for it or drops it.
    ///
    /// Win32 counterpart: `SetThreadpoolTimer` without a time.
    public func cancel() { pool.monitor.locked { pool.timers.remove(self) } }

    override func disarm() -> Call? {
        pool.timers.remove(self)
        return nil
    }

    override func expire(_ queue: inout TimerQueue) -> Call? {
        if let period {
            // The first of its moments that lies ahead.
            let late = Duration.nanoseconds(Int64(clamping: Deadline.now.nanoseconds - due.nanoseconds))
            queue.insert(self, due: due.advanced(by: period * (Int(late / period) + 1)), window: window)
        }
        return announce()
    }

    override func called(_ packet: Packet, _ instance: CallbackInstance) { callback(instance) }
}
