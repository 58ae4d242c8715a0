import Contexts
import Kernel
import Timeline

/// Jobs that wait for a worker: first in, first out, bounded, and with a share for each client. (I9.3)
///
/// Who adds never waits: it is told that there is no room, and keeps the job. Any thread may call it. Win32 counterpart: the
/// article's job list, which has no bound.
public final class JobQueue: @unchecked Sendable {
    /// The most jobs that wait.
    public let capacity: Int
    /// The most of them that one client may have.
    public let capacityPerClient: Int
    private let queueLow: @Sendable ([ConnectionID]) -> Void

    // One lock for the jobs and for the numbers of the pool that takes them: to take a job and to end a worker are
    // decided in the same place. (I9.6)
    let lock = Lock()
    /// There is a job, or a reason not to wait for one.
    let changed = Condition()
    // Guarded by the lock.
    private var jobs = CircularQueue<Job>()
    private var waiting: [ConnectionID: Int] = [:]
    private var isOpen = true
    private var numbers = Counters()
    /// Clients whose job found no room, and who have not been told since that there is some.
    private var refused: Set<ConnectionID> = []
    /// The same for work that is nobody's.
    private var hasRefusedOwn = false

    /// What has happened so far.
    public struct Counters: Sendable, Equatable {
        /// Jobs taken in.
        public internal(set) var added = 0
        /// Jobs that found no room, or came too late.
        public internal(set) var refused = 0
        /// The most that waited at a time.
        public internal(set) var peak = 0
    }

    /// An empty queue.
    ///
    /// - Parameters:
    ///   - capacity: At least 1.
    ///   - capacityPerClient: 1 to `capacity`; nil for a quarter of it.
    ///   - queueLow: Called without a lock, by the thread that has taken a job, when jobs have been refused and the queue has
    ///     fallen to half: with the clients that were refused and have no more than half of their share waiting. Each may ask
    ///     again; one that is refused again is told again.
    public init(
        capacity: Int = 1_024, capacityPerClient: Int? = nil,
        queueLow: @escaping @Sendable (_ clients: [ConnectionID]) -> Void = { _ in }
    ) {
        precondition(capacity > 0, "a queue has room for a job")
        self.capacity = capacity
        self.capacityPerClient = min(capacity, max(1, capacityPerClient ?? capacity / 4))
        self.queueLow = queueLow
    }

    /// Jobs that wait now.
    public var count: Int { lock.locked { jobs.count } }

    /// Those of them that are this client's.
    public func count(of client: ConnectionID) -> Int { lock.locked { waiting[client] ?? 0 } }

    /// What has happened so far.
    public var counters: Counters { lock.locked { numbers } }

    /// Whether jobs are taken in. Without, those that wait are still handed out, and a worker that finds none ends.
    /// Counterpart in the article: `m_bAcceptJobs`.
    public var accepts: Bool {
        get { lock.locked { isOpen } }
        set {
            lock.locked {
                isOpen = newValue
                changed.broadcast()
            }
        }
    }

    /// Adds a job behind the others, and never waits.
    ///
    /// - Throws: `full`, `shareUsed` or `closed`; then the job is still the caller's, and the refusal is counted.
    public func add(_ job: consuming Job) throws(JobError) {
        lock.lock()
        defer { lock.unlock() }
        if let error = refusal(of: job.client) {
            numbers.refused += 1
            if let client = job.client { refused.insert(client) } else { hasRefusedOwn = true }
            throw error
        }
        job.added = coarseNanoseconds()
        if let client = job.client { waiting[client, default: 0] += 1 }
        if Recorder.isRecording {
            Recorder.label(job.identity, job.command.isEmpty ? "job" : job.command)
            Recorder.mark(.queued, job.identity)
        }
        jobs.append(job)
        numbers.added += 1
        numbers.peak = max(numbers.peak, jobs.count)
        changed.signal()
    }

    private func refusal(of client: ConnectionID?) -> JobError? {
        if !isOpen { return .closed }
        if jobs.count >= capacity { return .full(capacity: capacity) }
        guard let client, (waiting[client] ?? 0) >= capacityPerClient else { return nil }
        return .shareUsed(share: capacityPerClient)
    }

    /// Takes the oldest job; nil when there is none. Never waits.
    public func take() -> Job? {
        lock.lock()
        let job = popLocked()
        unlockAndTell()
        return job
    }

    /// Takes the oldest job, and waits for one.
    ///
    /// - Returns: nil when the time is over, or when nothing waits and the queue takes nothing in any more.
    public func takeNext(until deadline: Deadline = .never) -> Job? {
        lock.lock()
        while jobs.isEmpty, isOpen, changed.wait(lock, until: deadline) {}
        let job = popLocked()
        unlockAndTell()
        return job
    }

    /// Takes all jobs of a client back that still wait: it has left, and nobody needs to work for it. The others keep
    /// their order. Takes as long as the queue.
    @discardableResult
    public func takeBack(_ client: ConnectionID) -> [Job] {
        lock.lock()
        var back: [Job] = []
        refused.remove(client)
        if waiting[client] != nil {
            for _ in 0..<jobs.count {
                let job = jobs.popFirst()!
                if job.client == client { back.append(job) } else { jobs.append(job) }
            }
            waiting[client] = nil
        }
        unlockAndTell()
        return back
    }

    // MARK: Under the lock

    var countLocked: Int { jobs.count }
    var isClosed: Bool { !isOpen }

    func popLocked() -> Job? {
        guard let job = jobs.popFirst() else { return nil }
        if let client = job.client {
            let left = waiting[client]! - 1
            waiting[client] = left == 0 ? nil : left
        }
        Recorder.mark(.dequeued, job.identity)
        return job
    }

    /// With the lock, and returns without it: tells those who have room again.
    func unlockAndTell() {
        let clients = clientsWithRoom()
        lock.unlock()
        if let clients { queueLow(clients) }
    }

    /// Those who were refused and may ask again; nil when there are none. At most a few wait for their own share alone: more
    /// than half a share each, in less than half a queue.
    private func clientsWithRoom() -> [ConnectionID]? {
        guard hasRefusedOwn || !refused.isEmpty, jobs.count <= capacity / 2 else { return nil }
        let clients = refused.filter { (waiting[$0] ?? 0) <= capacityPerClient / 2 }
        refused.subtract(clients)
        defer { hasRefusedOwn = false }
        return hasRefusedOwn || !clients.isEmpty ? clients.sorted() : nil
    }
}
