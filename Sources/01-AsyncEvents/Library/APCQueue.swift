import Glibc
import Kernel

/// A thread's queue of asynchronous procedure calls, and the place where it sleeps.
///
/// Any thread may put calls in. They run on the thread that owns the queue, in order, and only while that thread is
/// in an alertable wait (I1.6).
/// Win32 counterpart: the APC queue that every thread has.
public final class APCQueue: CompletionTarget, @unchecked Sendable {
    /// How many calls may wait in one queue before `queue` refuses more.
    public static let limit = 65_536

    private enum Call {
        case routine(@Sendable () -> Void)
        /// Owned by the queue until it is run.
        case completion(Unmanaged<Overlapped>)
    }

    // Guarded by `Dispatcher.lock`.
    private var calls = CircularQueue<Call>()
    private var hasEnded = false
    /// The wait that calls may end, while the thread is in one.
    var alertableWait: Wait?
    /// Where the thread sleeps.
    let woken = Condition()

    private override init() {}

    /// The calling thread's own queue.
    public static var current: APCQueue {
        if let known = pthread_getspecific(key) {
            return Unmanaged<APCQueue>.fromOpaque(known).takeUnretainedValue()
        }
        let new = APCQueue()
        // The thread owns this reference; its end gives it back, in the key's destructor.
        pthread_setspecific(key, Unmanaged.passRetained(new).toOpaque())
        return new
    }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let code = pthread_key_create(&key) { pointer in
            let queue = Unmanaged<APCQueue>.fromOpaque(pointer!).takeRetainedValue()
            Dispatcher.lock.locked { queue.hasEnded = true }
            queue.runCalls(really: false)
        }
        precondition(code == 0, "no thread-specific key is left")
        return key
    }()

    /// Asks this queue's thread to run `routine` in its next alertable wait, or in the present one.
    /// Win32 counterpart: `QueueUserAPC`.
    public func queue(_ routine: @escaping @Sendable () -> Void) throws(APCError) {
        try Dispatcher.lock.locked { () throws(APCError) in
            if hasEnded { throw .threadEnded }
            if calls.count >= APCQueue.limit { throw .queueFull }
            add(.routine(routine))
        }
    }

    /// Takes over operations that have completed and whose routine is to run here. Called by drivers.
    public override func take(_ completed: inout CompletionList) {
        // After the thread's end, the last reference to this queue may come with the operations.
        var owner: CompletionTarget?
        Dispatcher.lock.lock()
        while let operation = completed.popFirst() {
            owner = operation._withUnsafeGuaranteedRef { $0.routineTarget }
            add(.completion(operation))
        }
        let isLate = hasEnded
        Dispatcher.lock.unlock()
        withExtendedLifetime(owner) { if isLate { runCalls(really: false) } }
    }

    private func add(_ call: Call) {
        calls.append(call)
        alertableWait?.end(.routinesRan)
    }

    /// Under the lock: whether an alertable wait would run something.
    var hasCalls: Bool { !calls.isEmpty }

    /// Runs what is in the queue, and what comes in meanwhile, until nothing is left; or only takes it out, when the
    /// thread has ended and will run nothing more.
    func runCalls(really: Bool = true) {
        while let call = Dispatcher.lock.locked({ calls.popFirst() }) {
            switch call {
            case .routine(let routine):
                if really { routine() }
            case .completion(let reference):
                let operation = reference.takeRetainedValue()
                let request = operation as? RoutineRequest
                let routine = request?.disarm()
                // From here on the operation may be posted again, by its routine for instance.
                operation.wasDequeued()
                if really, let request { routine?(request) }
            }
        }
    }

    /// Sleeps; alertable, only until calls have run. Win32 counterpart: `SleepEx`.
    public static func sleep(until deadline: Deadline, alertable: Bool) -> WaitResult {
        Dispatcher.wait([], until: deadline, alertable: alertable)
    }
}

/// Why a call was not queued.
public enum APCError: Error, Equatable, CustomStringConvertible {
    /// The queue's thread has ended: the call would never run.
    case threadEnded
    /// `APCQueue.limit` calls wait already.
    case queueFull

    /// One line.
    public var description: String {
        switch self {
        case .threadEnded: "queue a call to a thread that has ended"
        case .queueFull: "queue a call: \(APCQueue.limit) calls wait for that thread already"
        }
    }
}
