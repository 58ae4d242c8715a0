import Contexts
import Glibc
import Kernel
import Reordering
import Timeline

/// Threads for work that is no I/O: the article's *logical workers*. They belong to no port, so none of its workers waits
/// for them, and none of them counts against its limit. (I9.1)
///
/// Their number may be changed at any time, from any thread. Whoever makes a pool stops it: until then it stays, with its
/// threads. Win32 counterpart: threads of one's own, or `QueueUserWorkItem`.
public final class WorkerPool: @unchecked Sendable {
    /// The most workers that can be asked for.
    public static let maximumWorkers = 256

    /// What a worker does with a job, without a lock, several at once. It may add jobs, send to clients by their names, and
    /// change the number of workers. What it returns is the answer, sent to the job's client at the job's place; nil for
    /// none. An error that it throws is counted and reported; the worker goes on. (I9.2)
    public typealias Process = @Sendable (_ job: Job, _ pool: WorkerPool) throws -> [UInt8]?

    /// What the program may want to hear of the pool. All of it is called without a lock, by a worker.
    public struct Events: Sendable {
        /// A worker has begun; its number, from 1 on. Numbers of workers that have ended are not given again.
        public var workerStarted: @Sendable (_ number: Int) -> Void = { _ in }
        /// A worker ends: its last words.
        public var workerEnded: @Sendable (_ number: Int) -> Void = { _ in }
        /// A job has failed, and its ticket was skipped.
        public var jobFailed: @Sendable (_ job: Job, _ error: any Error) -> Void = { _, _ in }
        /// A client's job has no answer, and its ticket was skipped: there is room for another one.
        public var unanswered: @Sendable (_ client: ConnectionID) -> Void = { _ in }

        /// Nothing.
        public init() {}
    }

    /// What has happened so far, and what is so now.
    public struct Counters: Sendable, Equatable, CustomStringConvertible {
        /// Jobs taken in, refused, and the most that waited: the queue's.
        public internal(set) var added = 0, refused = 0, peak = 0
        /// Jobs done, those that failed included.
        public internal(set) var done = 0
        /// Jobs whose work has thrown.
        public internal(set) var failed = 0
        /// Answers whose client was gone: dropped.
        public internal(set) var departed = 0
        /// Answers that a client's connection had no room for: it was closed, since its stream would have a hole.
        public internal(set) var unsent = 0
        /// Jobs in the queue, and jobs that are being done.
        public internal(set) var waiting = 0, running = 0
        /// Workers that there are. After shrinking, more than wanted for a while.
        public internal(set) var workers = 0

        /// One line.
        public var description: String {
            "jobs: \(added) added, \(refused) refused, \(done) done, \(failed) failed, \(departed) departed, "
                + "\(unsent) unsent; \(waiting) waiting (peak \(peak)), \(running) running on \(workers) workers"
        }
    }

    /// Where the jobs wait.
    public let queue: JobQueue
    private let name: String
    let find: @Sendable (ConnectionID) -> StreamConnection?
    let events: Events
    private let process: Process
    /// A worker has gone.
    private let gone = Condition()

    // MARK: Guarded by the queue's lock

    private var wanted = 0
    private var lastNumber = 0
    /// Workers that take jobs.
    private var alive = 0
    /// Workers that take no more, and have not gone yet.
    private var leaving = 0
    private var threads: [Int: Kernel.Thread] = [:]
    /// Those of workers that have gone; the next one who comes by joins them.
    private var ended: [Kernel.Thread] = []
    private var members: Set<Int32> = []
    private var numbers = Counters()

    /// Starts workers.
    ///
    /// - Parameters:
    ///   - workers: 0 to ``maximumWorkers``.
    ///   - name: What the threads are called, with a number behind it.
    ///   - process: Called for every job that does not bring its work along.
    ///   - find: Gives the connection of a name, for answers: mostly `hub.find`.
    /// - Throws: EINVAL for an impossible number, EAGAIN when the system allows no more threads.
    public init(
        workers: Int = 1, queue: JobQueue = JobQueue(), name: String = "logical", events: Events = Events(),
        process: @escaping Process = { _, _ in nil },
        find: @escaping @Sendable (ConnectionID) -> StreamConnection? = { _ in nil }
    ) throws(SystemError) {
        (self.queue, self.name, self.events, self.find, self.process) = (queue, name, events, find, process)
        do throws(SystemError) {
            try setWorkers(workers)
        } catch {
            // Those that could be started go again.
            _ = try? stop()
            throw error
        }
    }

    /// How many workers are wanted.
    public var workers: Int { queue.lock.locked { wanted } }

    /// What has happened so far.
    public var counters: Counters {
        let ofQueue = queue.counters
        return queue.lock.locked {
            var now = numbers
            (now.added, now.refused, now.peak) = (ofQueue.added, ofQueue.refused, ofQueue.peak)
            now.waiting = queue.countLocked
            now.workers = alive + leaving
            return now
        }
    }

    /// Adds a job. See ``JobQueue/add(_:)``.
    public func add(_ job: consuming Job) throws(JobError) { try queue.add(job) }

    /// Adds a piece of work.
    public func add(_ work: @escaping @Sendable () throws -> Void) throws(JobError) {
        try queue.add(Job(work))
    }

    // MARK: Their number

    /// Changes the number of workers. More are started at once. If there are too many, those without a job end, and the
    /// others when theirs is done: no job is lost, and none is done twice. (I9.6) With 0, jobs wait.
    ///
    /// - Parameter waits: Whether to return only when there are no more than wanted.
    /// - Throws: EINVAL for a number below 0 or beyond ``maximumWorkers``; EDEADLK when a worker wants to wait for itself;
    ///   EAGAIN when the system allows no more threads: then there are as many as it allows. EBADF after `stop`.
    ///
    /// Counterpart in the article: `SetWorkers`.
    public func setWorkers(_ count: Int, waits: Bool = false) throws(SystemError) {
        guard (0...WorkerPool.maximumWorkers).contains(count) else {
            throw SystemError.invalid("have \(count) workers (0 to \(WorkerPool.maximumWorkers))")
        }
        if waits { try refuseToWaitForItself() }
        try queue.lock.locked { () throws(SystemError) in
            if queue.isClosed, count > 0 { throw SystemError.closed("start workers") }
            wanted = count
            // Another thread that waits for a smaller number may have it now.
            gone.broadcast()
            // Those that were to go and have not decided so yet stay, and count.
            while alive < wanted { try startLocked() }
            if alive > wanted { queue.changed.broadcast() }
        }
        if waits { waitForLeaving() }
        joinEnded()
    }

    /// Under the lock, so that the new worker finds itself in the list.
    private func startLocked() throws(SystemError) {
        let number = lastNumber + 1
        do throws(SystemError) {
            threads[number] = try Kernel.Thread("\(name) \(number)") { [self] in run(number) }
        } catch {
            wanted = alive
            throw error
        }
        lastNumber = number
        alive += 1
    }

    // MARK: A worker's life

    private func run(_ number: Int) {
        Recorder.nameThread("\(name) \(number)")
        queue.lock.locked { _ = members.insert(Kernel.Thread.currentID) }
        events.workerStarted(number)
        var last: Bool?
        while let job = next(after: last) {
            last = perform(job)
        }
        events.workerEnded(number)
        queue.lock.locked {
            members.remove(Kernel.Thread.currentID)
            leaving -= 1
            ended.append(threads.removeValue(forKey: number)!)
            gone.broadcast()
        }
    }

    /// Puts down what has become of the last job, and takes the next one; nil when this worker is to go. To look for a job
    /// and to go are one decision: so a worker never goes with a job, and never while it is the one that is needed. (I9.6)
    private func next(after last: Bool?) -> Job? {
        queue.lock.lock()
        if let last {
            numbers.running -= 1
            numbers.done += 1
            if !last { numbers.failed += 1 }
        }
        while alive <= wanted {
            let job = queue.popLocked()
            if job != nil {
                numbers.running += 1
                queue.unlockAndTell()
                return job
            }
            if queue.isClosed { break }
            queue.changed.wait(queue.lock, until: .never)
        }
        alive -= 1
        leaving += 1
        queue.unlockAndTell()
        return nil
    }

    /// Without a lock. False when the work has thrown. (I9.2)
    private func perform(_ job: Job) -> Bool {
        defer { Recorder.mark(.handled, job.identity) }
        do {
            if let work = job.work {
                try work()
            } else if let answer = try process(job, self) {
                answer.withUnsafeBytes { send($0, to: job) }
            } else {
                skip(job)
            }
            return true
        } catch {
            skip(job)
            events.jobFailed(job, error)
            return false
        }
    }

    enum Loss {
        case departed, unsent
    }

    /// Counts an answer that went nowhere.
    func count(_ loss: Loss) -> Bool {
        queue.lock.locked {
            if loss == .departed { numbers.departed += 1 } else { numbers.unsent += 1 }
        }
        return false
    }

    // MARK: The end

    /// Takes no more jobs, lets the workers end, and waits for them.
    ///
    /// - Parameter draining: Whether the workers do first what still waits; if there is none of them, nobody does. With
    ///   false they end after their present job.
    /// - Returns: The jobs that were not done. Their tickets have been skipped. Nothing is lost silently.
    /// - Throws: EDEADLK when a worker would wait for itself.
    @discardableResult
    public func stop(draining: Bool = true) throws(SystemError) -> [Job] {
        try refuseToWaitForItself()
        if !draining { queue.lock.locked { wanted = 0 } }
        queue.accepts = false
        waitForLeaving()
        joinEnded()
        var left: [Job] = []
        while let job = queue.take() {
            skip(job)
            left.append(job)
        }
        return left
    }

    /// - Throws: EDEADLK on one of its workers.
    package func refuseToWaitForItself() throws(SystemError) {
        if queue.lock.locked({ members.contains(Kernel.Thread.currentID) }) {
            throw SystemError(EDEADLK, attempted: "wait for a worker, by itself")
        }
    }

    private func waitForLeaving() {
        queue.lock.locked {
            while leaving > 0 || alive > (queue.isClosed ? 0 : wanted) {
                gone.wait(queue.lock, until: .never)
            }
        }
    }

    /// They have nothing left to do.
    private func joinEnded() {
        let threads = queue.lock.locked {
            defer { ended = [] }
            return ended
        }
        for thread in threads { thread.join() }
    }
}
