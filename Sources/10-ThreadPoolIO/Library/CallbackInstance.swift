import AsyncEvents
import Glibc
import Kernel

/// What a callback is told about the thread it runs on. Valid during the callback, and on its thread only.
///
/// Win32 counterpart: `PTP_CALLBACK_INSTANCE`.
public final class CallbackInstance: @unchecked Sendable {
    /// The pool whose thread this is.
    public let pool: ThreadPool
    let number: Int
    /// Whose callback is running.
    var object: PoolObject?
    private var events: [Event] = []

    init(_ pool: ThreadPool, _ number: Int) {
        self.pool = pool
        self.number = number
    }

    /// Says that this callback will take long, and asks whether the pool has another thread for the others.
    ///
    /// - Returns: false when all threads are busy and there may be no more. Then the callback had better be short.
    ///
    /// Win32 counterpart: `CallbackMayRunLong`.
    public func mayRunLong() -> Bool {
        let needsThread = pool.monitor.locked {
            pool.count.waiting > 0 ? false : pool.reserveThread(unless: false)
        }
        if needsThread { try? pool.startThread() }
        return pool.monitor.locked { pool.count.waiting > 0 }
    }

    /// Sets an event when this callback has returned: whoever waits for it may take away what the callback uses.
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
