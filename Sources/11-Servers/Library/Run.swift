import Contexts
import FileTransfer
import Framing
import Kernel
import LockedMemory
import PrepostedAccepts
import Reordering
import Synchronization
import ThreadPoolIO
import WorkerPools

/// An endpoint from a start to its stop: everything that it is made of, put together once and taken apart once. A port that is
/// closed is never opened again, so a second start makes a second one.
final class Run: @unchecked Sendable {
    let options: EndpointOptions
    let handler: any EndpointHandler
    /// The connections: 05, with the memory of 07.
    let hub: StreamHub
    let receives: BudgetedReceives
    /// The sessions by their names: 04.
    let registry = ConnectionRegistry<Session>(limit: .max)
    let gate: Gate
    let ledger = FrameLedger()
    /// Files: 08.
    let files: FileService?
    /// Work: 09.
    let jobs: WorkerPool
    private let messages: MessageQueue
    /// Time: 04 for limits, and 10 for those who come back.
    private let limits: PeriodicTask, peers: PeriodicTask?
    private let limitsThread = Guarded<Int32>(0)
    let timers: ThreadPool
    private let seen: Guarded<SeenMessages>
    let links = Guarded<[Link]>([])
    let isStopping = Atomic<Bool>(false)

    // MARK: Figures

    /// The last look that was a second after the one before, and the messages in a second at that time.
    let sample = Guarded<(at: UInt64, messages: Int, rate: Double)>((0, 0, 0))
    let mostUnderWay = Atomic<Int>(0), acknowledged = Atomic<Int>(0)

    /// Bottom up. What exists when something throws is taken down again.
    init(_ options: EndpointOptions, _ handler: any EndpointHandler, _ seen: Guarded<SeenMessages>)
        throws(SystemError)
    {
        (self.options, self.handler, self.seen) = (options, handler, seen)
        gate = Gate(options)
        var cleanup: [() -> Void] = []
        do throws(SystemError) {
            messages = try MessageQueue { [handler] line in handler.log(String(line.dropLast())) }
            cleanup.append { [messages] in _ = messages.stop() }
            receives = try options.makeReceives()
            var streams = StreamHub.Options()
            (streams.workers, streams.concurrency, streams.batch) = (
                options.ioWorkers, options.concurrency, options.batch
            )
            streams.pendingReads = options.pendingReads
            // What is read into is the policy's. An answer of the longest message is one send.
            streams.chunkCapacity = max(options.bufferSize, options.maximumPackage + Delivery.head + 4)
            // A place that is given up may be taken before its connection is out of the hub's table.
            streams.maximumConnections = options.places
            streams.maximumPendingSends = options.sendContexts
            // What a read brings of messages is answered with those contexts, and may be jobs: so reads grow for files only. (I11.4)
            streams.growsUnasked = false
            streams.maximumFreeChunks = options.maximumFreeContexts
            (streams.accepts, streams.keepAlive, streams.port) = (
                options.accepts, options.keepAlive, options.port
            )
            streams.receives = receives
            let hub = try StreamHub(streams)
            self.hub = hub
            cleanup.append { hub.stop() }
            var pool = ThreadPool.Options()
            (pool.minimum, pool.maximum) = (0, 2)
            timers = try ThreadPool(pool)
            cleanup.append { [timers] in try? timers.closeAndWait() }
            let registry = registry
            let queue = JobQueue(capacity: options.jobCapacity, capacityPerClient: options.jobsPerClient) {
                clients in
                for id in clients { registry.find(id)?.proceedWithJobs() }
            }
            var events = WorkerPool.Events()
            events.jobFailed = { [messages] job, error in
                guard options.log.rawValue >= LogLevel.warnings.rawValue else { return }
                messages.say("job '\(Array(job.command.utf8).span.bytes.printable)' failed: \(error)")
            }
            events.unanswered = { client in registry.find(client)?.proceedWithJobs() }
            jobs = try WorkerPool(
                workers: options.logicalWorkers, queue: queue, events: events,
                process: { job, _ in try Run.work(job, handler, registry) },
                find: { hub.find($0) })
            cleanup.append { [jobs] in _ = try? jobs.stop(draining: false) }
            files = try options.files.map { files throws(SystemError) in
                try FileService(files, events: Run.fileEvents(handler))
            }
            limits = try Rounds.limits(options, hub, files, on: limitsThread)
            cleanup.append { [limits] in limits.stop() }
            peers = try Rounds.peers(options, hub)
        } catch {
            for step in cleanup.reversed() { step() }
            throw error
        }
    }

    /// A logical worker: the program's answer, framed as its client's messages are. (I11.5)
    private static func work(
        _ job: Job, _ handler: any EndpointHandler, _ registry: ConnectionRegistry<Session>
    ) throws
        -> [UInt8]?
    {
        guard let answer = try handler.process(job) else { return nil }
        guard let client = job.client, let session = registry.find(client) else { return answer }
        let message = try session.frame(answer.span.bytes)
        session.messagesOut.add(1, ordering: .relaxed)
        return message
    }

    private static func fileEvents(_ handler: any EndpointHandler) -> FileEvents {
        var events = FileEvents()
        events.offered = { transfer, _, name, size in
            guard let session = transfer.session else { return false }
            // Who sends a file need not say anything else.
            session.welcome()
            return handler.offered(name, size, session)
        }
        events.progress = { transfer, progress in transfer.session?.note(progress) }
        let finished: @Sendable (FileTransfer, TransferResult) -> Void = { transfer, result in
            guard let session = transfer.session else { return }
            session.run.gate.count { $0.filesUnderWay += 1 }
            session.fileOver(result)
        }
        (events.received, events.sent) = (finished, finished)
        return events
    }

    // MARK: What sessions tell

    func begin(_ session: Session, isOutward: Bool) {
        if isOutward { gate.count { $0.connected += 1 } }
        try? registry.insert(session, as: session.id)
        say(.information, "\(session.id) \(session.address.map { "\($0)" } ?? ""): connected")
    }

    func end(_ session: Session, _ why: EndReason) {
        gate.count { $0.messagesOut += session.messagesOut.load(ordering: .relaxed) }
        registry.remove(session.id, .ended)
        jobs.queue.takeBack(session.id)
        let level: LogLevel = if case .timedOut = why { .warnings } else { .information }
        say(level, "\(session.id) \(session.address.map { "\($0)" } ?? ""): \(why)")
    }

    func note(underWay: Int) {
        if underWay > mostUnderWay.load(ordering: .relaxed) {
            _ = mostUnderWay.max(underWay, ordering: .relaxed)
        }
    }

    func isNew(_ number: UInt64, of sender: UInt64) -> Bool {
        let isNew = seen.locked { $0.isNew(number, of: sender) }
        if !isNew { gate.count { $0.repeated += 1 } }
        return isNew
    }

    func say(_ level: LogLevel, _ line: @autoclosure () -> String) {
        if level.rawValue <= options.log.rawValue { messages.say(line()) }
    }

    // MARK: The end

    /// - Throws: `wouldWaitForItself` on a thread that calls handlers.
    func requireOutside() throws(EndpointError) {
        let isOutside =
            (try? timers.requireOutside("stop")) != nil && (try? jobs.refuseToWaitForItself()) != nil
            && limitsThread.locked { $0 } != Thread.currentID
        guard isOutside, !hub.port.isOwnWorker else { throw .wouldWaitForItself }
    }

    /// Top down: nobody new, no new work, everybody's end, and then the threads. It returns when every thread that could call the
    /// handler has ended, however long that takes. (I11.3)
    func stop(within grace: Duration) -> Statistics {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        hub.stopListening()
        for link in links.locked({ $0 }) { link.stop() }
        _ = try? jobs.stop(draining: false)
        let complaint = PoolTimer(timers) { [self] _ in
            say(.warnings, "stop waits for \(registry.count) sessions and what their handlers are doing")
        }
        try? complaint.set(after: .seconds(1), period: .seconds(1))
        for session in registry.snapshot() {
            session.callOff()
            session.end(.stopping, grace > .zero ? .graceful(within: grace) : .abortive)
        }
        hub.stop(within: grace)
        limits.stop()
        peers?.stop()
        complaint.cancel()
        try? timers.closeAndWait()
        links.locked { $0 = [] }
        let last = statistics
        say(.information, "stopped")
        messages.stop()
        return last
    }
}

extension EndpointOptions {
    /// Connections that the hub has room for.
    var places: Int {
        maximumConnections.addingReportingOverflow(64).overflow ? .max : maximumConnections + 64
    }

    /// Contexts that a connection may send with: beyond those that pause its reading there is room for what its pending reads may
    /// still bring answers to.
    var sendContexts: Int {
        let each = (FramedConnection<LengthPrefixed>.standardBatch + bufferSize) / max(1, bufferSize)
        return min(65_536, maximumPendingSends + max(1, pendingReads) * 3 * each)
    }

    /// Chapter 07's policy.
    func makeReceives() throws(SystemError) -> BudgetedReceives {
        guard maximumConnections > 0, (1...64).contains(pendingReads), bufferSize > 0,
            maximumPendingSends > 0,
            maximumPackage > 0, Page.count(bytes: bufferSize) <= budgetPages,
            (1...WorkerPool.maximumWorkers).contains(ioWorkers)
        else { throw SystemError.invalid("make an endpoint without room for a session") }
        let pages = Page.count(bytes: bufferSize) * pendingReads
        let choice: BudgetedReceives.Choice =
            switch reading {
            case .buffered: .buffered
            case .zeroByte: .zeroByte
            case .adaptive: .adaptive(ReceiveThresholds(budget: budgetPages, pagesEach: pages))
            }
        let (all, isBeyond) = places.multipliedReportingOverflow(by: pendingReads)
        let slab = try PageSlab(
            bufferSize: bufferSize, capacity: isBeyond ? 1 << 22 : min(all, 1 << 22),
            maximumFree: maximumFreeBuffers)
        return BudgetedReceives(choice, budget: PageBudget(pages: budgetPages, locking: locking), slab: slab)
    }
}
