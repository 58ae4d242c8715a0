import Glibc
import Reordering

/// What a thread is in the middle of, as executors see it: nothing, a completion that may take a job along, or a job.
///
/// Each thread has one, and no other thread looks at it.
final class Seat {
    /// The hub whose worker this thread is known to be: it has run a job for it. Nobody but a worker does.
    private var home: ObjectIdentifier?
    private var state = State.elsewhere
    private var job: UnownedJob?

    private enum State {
        case elsewhere
        /// A completion resumes a task at this moment: the job that comes of it may stay here.
        case resuming
        /// A job is running. What it makes ready goes through the port.
        case inJob
    }

    /// The calling thread's.
    static var current: Seat {
        if let known = pthread_getspecific(key) {
            return Unmanaged<Seat>.fromOpaque(known).takeUnretainedValue()
        }
        let seat = Seat()
        // The thread owns it, and gives it back at its end, below.
        pthread_setspecific(key, Unmanaged.passRetained(seat).toOpaque())
        return seat
    }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key) { seat in
            if let seat { Unmanaged<Seat>.fromOpaque(seat).release() }
        }
        return key
    }()

    /// Keeps a job for the completion that has made it ready; false when there is none, or it has one already.
    func take(_ job: UnownedJob, for hub: StreamHub) -> Bool {
        guard state == .resuming, self.job == nil, home == ObjectIdentifier(hub) else { return false }
        self.job = job
        return true
    }

    /// A completion is about to resume a task. False when this thread is no worker of the hub, or is in the middle of a job.
    func offers(_ hub: StreamHub) -> Bool {
        guard state == .elsewhere, home == ObjectIdentifier(hub) else { return false }
        state = .resuming
        return true
    }

    /// The job that was kept, if any. (A task that prefers another executor has gone there.)
    func leftJob() -> UnownedJob? {
        state = .elsewhere
        return job.take()
    }

    func beginsJob(of hub: StreamHub) {
        home = ObjectIdentifier(hub)
        state = .inJob
    }

    func endsJob() { state = .elsewhere }
}
