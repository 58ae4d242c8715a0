import Glibc

/// A lock that one thread holds at a time. It cannot be copied, so it cannot be forgotten in a copy.
///
/// A POSIX mutex rather than `Synchronization.Mutex`: it costs the same (about 11 ns for locking and unlocking without
/// contention), and ThreadSanitizer understands it. Win32 counterpart: `SRWLOCK`, `CRITICAL_SECTION`.
public struct Lock: ~Copyable, @unchecked Sendable {
    // On the heap, since a POSIX mutex must not move. Freed with the lock, which no thread holds by then.
    @usableFromInline let mutex: UnsafeMutablePointer<pthread_mutex_t>

    /// An open lock.
    public init() {
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    /// Waits until the lock is this thread's.
    @inlinable public func lock() { pthread_mutex_lock(mutex) }

    /// Gives the lock back.
    @inlinable public func unlock() { pthread_mutex_unlock(mutex) }

    /// In debug builds: stops the program when the calling thread does not hold the lock. (The mutex knows its owner.)
    @inlinable @inline(__always)
    public func assertHeld() { assert(mutex.pointee.__data.__owner == Thread.currentID) }

    /// Holds the lock while `body` runs.
    @inlinable @inline(__always)
    public func locked<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result
    {
        lock()
        defer { unlock() }
        return try body()
    }
}

/// A lock, and a place to wait for what it guards to change.
///
/// Win32 counterpart: `SRWLOCK` with a `CONDITION_VARIABLE`.
public struct Monitor: ~Copyable, @unchecked Sendable {
    let guarding = Lock()
    let changed = Condition()

    /// A monitor that no thread holds.
    public init() {}

    /// Holds the lock while `body` runs.
    @inline(__always)
    public func locked<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result
    {
        try guarding.locked(body)
    }

    /// Inside `locked`: gives the lock back, waits for `signal` or `broadcast`, and takes it again.
    /// Returns false when the deadline has passed. May return early: ask again what you waited for.
    @discardableResult
    public func wait(until deadline: Deadline = .never) -> Bool { changed.wait(guarding, until: deadline) }

    /// Wakes one waiting thread.
    public func signal() { changed.signal() }

    /// Wakes every waiting thread.
    public func broadcast() { changed.broadcast() }
}

/// A place to wait, for use with a `Lock`. It measures its deadlines on the monotonic clock.
public struct Condition: ~Copyable, @unchecked Sendable {
    // On the heap, since a POSIX condition must not move. Freed with the struct, when no thread waits.
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    /// A condition that no thread waits for.
    public init() {
        condition = .allocate(capacity: 1)
        condition.initialize(to: pthread_cond_t())
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        condition.deallocate()
    }

    /// Gives `lock` back, waits for a signal, and takes it again. Returns false when the deadline has passed.
    @discardableResult
    public func wait(_ lock: borrowing Lock, until deadline: Deadline) -> Bool {
        if deadline.isNever { return pthread_cond_wait(condition, lock.mutex) == 0 }
        var time = deadline.timespec
        return pthread_cond_timedwait(condition, lock.mutex, &time) != ETIMEDOUT
    }

    /// Wakes one waiting thread.
    public func signal() { pthread_cond_signal(condition) }

    /// Wakes every waiting thread.
    public func broadcast() { pthread_cond_broadcast(condition) }
}
