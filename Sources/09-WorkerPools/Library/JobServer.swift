import CompletionPorts
import Contexts
import Framing
import Glibc
import Kernel
import Reordering

/// The stage's server: lines from `nc`, answered by the workers of a port where that is quick, and by logical workers where
/// it is not. (I9.1)
public final class JobServer: Sendable {
    /// The connections, and lines for them.
    private let service: FramedService<Lines>
    /// The logical workers, and their queue.
    public let pool: WorkerPool
    private let sessions: Guarded<[ConnectionID: JobSession]>
    let refused: @Sendable () -> Void

    /// The limits and choices.
    public struct Options: Sendable {
        /// The connections' own.
        public var streams = StreamHub.Options()
        /// Logical workers.
        public var logicalWorkers = 1
        /// Jobs that may wait, of all clients and of each.
        public var jobs = 1_024
        /// Nil for a quarter of all.
        public var jobsPerClient: Int?
        /// Where the server says what happens; nil for nowhere.
        public var messages: MessageQueue?
        /// Called by a logical worker with each job before it is done. For demonstrations and tests.
        package var probe: @Sendable (Job) throws -> Void = { _ in }
        /// Called when a line has found no room, before that is put down. The same.
        package var refused: @Sendable () -> Void = {}

        /// The defaults.
        public init() {}
    }

    /// Starts the workers of both kinds. It does not listen yet.
    ///
    /// - Throws: EINVAL for impossible options, EMFILE, EAGAIN.
    public init(_ options: Options = Options()) throws(SystemError) {
        var streams = options.streams
        // Each line may be a job with a place among the answers, and what finds no room waits in its session: 256 KiB of short lines
        // would be 50,000 of them for one client. So reads do not grow here.
        streams.maximumReadSize = streams.chunkCapacity
        let service = try FramedService(Lines(), options: streams)
        let hub = service.hub
        let sessions = Guarded<[ConnectionID: JobSession]>([:])
        let queue = JobQueue(capacity: options.jobs, capacityPerClient: options.jobsPerClient) { clients in
            // Without the lock: each may ask again, and be refused again.
            for session in sessions.locked({ all in clients.compactMap { all[$0] } }) { session.proceed() }
        }
        var events = WorkerPool.Events()
        if let messages = options.messages {
            events.workerStarted = { messages.say("logical worker \($0) begins") }
            events.workerEnded = { messages.say("logical worker \($0) ends") }
        }
        events.jobFailed = { job, error in
            options.messages?.say("\(job.command) failed: \(error)")
        }
        events.unanswered = { client in sessions.locked { $0[client] }?.proceed() }
        do throws(SystemError) {
            pool = try WorkerPool(
                workers: options.logicalWorkers, queue: queue, events: events,
                process: { job, _ in
                    try options.probe(job)
                    return JobServer.answer(job)
                }, find: { hub.find($0) })
        } catch {
            service.stop()
            throw error
        }
        (self.service, self.sessions, refused) = (service, sessions, options.refused)
    }

    /// What a logical worker does: without a lock, and without the connection. (I9.2, I9.4)
    private static func answer(_ job: Job) -> [UInt8] {
        switch Question(job.command) {
        case .primes(let limit): Array("\(primes(below: limit)) primes below \(limit)\n".utf8)
        case .sleep(let milliseconds):
            if usleep(UInt32(milliseconds) * 1_000) == 0 {
                Array("slept \(milliseconds) ms\n".utf8)
            } else {
                []
            }
        default: Array("\(job.command) is no work\n".utf8)
        }
    }

    /// Listens.
    ///
    /// - Returns: The address, with the port that was free.
    /// - Throws: EADDRINUSE when the address is taken, EBADF after `stop`.
    @discardableResult
    public func listen(on address: Address = .loopback()) throws(SystemError) -> Address {
        try service.listen(on: address) { JobSession(self) }
    }

    /// Takes a connection over that somebody else has made.
    public func adopt(_ socket: Socket) throws(SystemError) {
        try service.adopt(socket, handler: JobSession(self))
    }

    /// The connections.
    public var hub: StreamHub { service.hub }

    // MARK: What the sessions call

    func add(_ session: JobSession, _ id: ConnectionID) { sessions.locked { $0[id] = session } }

    /// The client has left. Nobody works for it any more, except who has begun.
    func remove(_ id: ConnectionID) {
        sessions.locked { $0[id] = nil }
        pool.queue.takeBack(id)
    }

    /// What is answered at once.
    func answer(_ question: Question?, _ line: String) -> String {
        switch question {
        case .hello: return "hello"
        case .stats: return pool.counters.description
        case .workers(let count):
            do throws(SystemError) {
                // From a worker of the port, so it does not wait for those that are to go.
                try pool.setWorkers(count)
                return "workers: \(count)"
            } catch {
                return "error: \(error)"
            }
        default:
            return
                "error: hello, primes N (to \(Question.mostPrimes)), sleep MS (to \(Question.longestSleep)), "
                + "workers N or stats, not \"\(line)\""
        }
    }

    /// Ends the jobs, then the connections. What waits is given up: its clients go, too.
    ///
    /// - Returns: Whether everything is back.
    @discardableResult
    public func stop() -> Bool {
        let left = try? pool.stop(draining: false)
        return service.stop() && left != nil
    }
}
