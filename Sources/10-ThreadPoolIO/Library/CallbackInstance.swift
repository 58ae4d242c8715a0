import AsyncEvents
import Glibc
import Kernel

/// What a callback is told about the thread it runs on. Valid during the callback, and on its thread only.
///
/// Win32 counterpart: `PTP_CALLBACK_INSTANCE`.
public final class CallbackInstance: @unchecked Sendable {
    /// The pool whose thread this is.
    public let pool: ThreadPool
    /// Whose callback runs on the thread, or has returned and its account is still open. The thread's own.
    var object: PoolObject?
    // Written by the thread, under the pool's monitor.
    /// Whether there is such a callback.
    var isBusy = false
    /// Until when the thread waits; nil while it does not.
    var sleepsUntil: Deadline?
    // The thread's own: how long it has had nothing to do. The clock is not asked for each callback: what counts is
    // whether there was one since the last look at it.
    private var events: [Event] = []
    var idleEnd: Deadline
    var hasWorked = false

    init(_ pool: ThreadPool) {
        self.pool = pool
        idleEnd = .after(pool.options.idleTime)
    }

    /// Whether the thread has had nothing to do for so long. If so, it is asked again after another such time.
    func idles(for time: Duration) -> Bool {
        guard idleEnd.hasPassed else { return false }
        defer { (idleEnd, hasWorked) = (.after(time), false) }
        return !hasWorked
    }

    /// Says that this callback will take long, and asks whether the pool has another thread for the others.
    ///
    /// - Returns: false when all threads are busy and there may be no more. Then the callback had better be short.
    ///
    /// Win32 counterpart: `CallbackMayRunLong`.
    public func mayRunLong() -> Bool {
        if pool.monitor.locked({ pool.reserveSpare() }) { pool.startSpare() }
        return pool.monitor.locked { pool.count.waiting > 0 }
    }

    /// Sets an event when this callback has returned: what the callback uses may be taken away by a thread that waits for
    /// it.
    ///
    /// Win32 counterpart: `SetEventWhenCallbackReturns`.
    public func set(_ event: Event) { events.append(event) }

    func setEvents() {
        guard !events.isEmpty else { return }
        for event in events { event.set() }
        events = []
    }

    // MARK: The thread's own

    /// The one of the calling thread; nil when it belongs to no pool.
    static var current: CallbackInstance? {
        get {
            guard let known = pthread_getspecific(key) else { return nil }
            return Unmanaged<CallbackInstance>.fromOpaque(known).takeUnretainedValue()
        }
        set {
            // Set once, at the start of a pool's thread, which keeps the object until it ends.
            pthread_setspecific(key, newValue.map { Unmanaged.passUnretained($0).toOpaque() })
        }
    }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let code = pthread_key_create(&key, nil)
        precondition(code == 0, "no thread-specific key is left")
        return key
    }()
}
