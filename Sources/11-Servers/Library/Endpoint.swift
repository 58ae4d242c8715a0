import CompletionPorts
import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import Reordering
import WorkerPools

/// One end of many connections, whoever has begun them: it listens, it connects, it does both. Server and client are this, with
/// a few words more.
///
/// It may be started and stopped as often as one likes, by any thread, at any moment. Every function may be called by any thread;
/// a name of a session that is over finds none. Counterpart in the article: `IOCPS`, which server and client are made of.
public class Endpoint: @unchecked Sendable {
    /// The limits and choices.
    public let options: EndpointOptions
    let handler: any EndpointHandler
    private let monitor = Monitor()
    private let seen: Guarded<SeenMessages>
    // Guarded by the monitor. Nothing is called while it is held.
    private var state = State.idle
    private var list: BanList
    private var last = Statistics()

    private enum State {
        case idle, starting
        case running(Run)
        case stopping(Run)
    }

    /// An endpoint that does nothing yet, and costs nothing.
    public init(_ options: EndpointOptions = EndpointOptions(), handler: any EndpointHandler) {
        (self.options, self.handler, list) = (options, handler, options.bans)
        seen = Guarded(SeenMessages(maximumSenders: options.maximumConnections))
    }

    /// What server and client do at their start.
    func open() throws(EndpointError) {}

    /// The frames of sessions whose kind is not named: four bytes of length, the most significant first.
    public var codec: LengthPrefixed {
        LengthPrefixed(.four, .bigEndian, maximumLength: options.maximumPackage)
    }

    // MARK: Start and stop

    /// Starts. When it throws nothing is left of the attempt.
    ///
    /// - Throws: `alreadyStarted`; `failed` with EADDRINUSE and the address, EMFILE, EINVAL for impossible options.
    public func start() throws(EndpointError) {
        let isOurs = monitor.locked {
            guard case .idle = state else { return false }
            state = .starting
            return true
        }
        guard isOurs else { throw .alreadyStarted }
        let run: Run
        do throws(SystemError) {
            run = try Run(options, handler, seen)
        } catch {
            settle(.idle)
            throw .failed(error)
        }
        settle(.running(run))
        // A change finds the run from here on.
        run.gate.bans = bans
        do throws(EndpointError) {
            try open()
        } catch {
            settle(.stopping(run))
            finishStop(run, .zero)
            throw error
        }
        handler.started(addresses)
    }

    private func settle(_ new: State) {
        monitor.locked {
            state = new
            monitor.broadcast()
        }
    }

    /// Stops: takes in nobody new, lets the sessions finish, ends those that have not when the time is over, and waits for every
    /// handler that is being called and every thread. (I11.3) Several may call it at once; all return when it is over.
    ///
    /// - Parameter grace: What sessions have; nil for the limit `stop`.
    /// - Returns: The last figures.
    /// - Throws: `notStarted`; `wouldWaitForItself` in a callback.
    @discardableResult
    public func stop(within grace: Duration? = nil) throws(EndpointError) -> Statistics {
        if let run = current { try run.requireOutside() }
        let own = try monitor.locked { () throws(EndpointError) -> Run? in
            while case .starting = state { monitor.wait() }
            if case .running(let run) = state {
                state = .stopping(run)
                return run
            }
            // Another is at it, or nothing is there.
            guard case .stopping = state else { throw .notStarted }
            while case .stopping = state { monitor.wait() }
            return nil
        }
        if let own {
            finishStop(own, grace ?? options.limits.stop)
            handler.stopped(lastStatistics)
        }
        return lastStatistics
    }

    private func finishStop(_ run: Run, _ grace: Duration) {
        let statistics = run.stop(within: grace)
        monitor.locked { last = statistics }
        settle(.idle)
    }

    private var lastStatistics: Statistics { monitor.locked { last } }

    /// What runs, or is about to stop.
    var current: Run? {
        monitor.locked {
            switch state {
            case .running(let run), .stopping(let run): run
            case .idle, .starting: nil
            }
        }
    }

    func running() throws(EndpointError) -> Run {
        guard let run = current else { throw .notStarted }
        return run
    }

    /// Whether it has been started, and not stopped.
    public var isStarted: Bool {
        monitor.locked { if case .running = state { true } else { false } }
    }

    // MARK: In

    /// Listens, and makes sessions of the clients.
    ///
    /// - Returns: The address, with the port that was free.
    /// - Throws: `notStarted`; `failed` with EADDRINUSE, EADDRNOTAVAIL, EMFILE.
    @discardableResult
    public func listen<Codec: FrameCodec>(on address: Address, codec: Codec) throws(EndpointError) -> Address
    {
        try listen(on: address, codec) { run, client in
            run.framed(codec, run.handler(FramedSession(run, codec, admitted: client)))
        }
    }

    /// Listens, and gives clients what the program has for them: connections beside the sessions, let in and counted like these,
    /// with a chapter 06 handler of their own each. Its `tick` is called by this endpoint's clock.
    @discardableResult
    public func listen<Codec: FrameCodec>(
        on address: Address, codec: Codec, handler: @escaping @Sendable () -> any FrameHandler<Codec>
    ) throws(EndpointError) -> Address {
        try listen(on: address, codec) { run, client in Beside(run.framed(codec, handler()), run, client) }
    }

    private func listen<Codec: FrameCodec>(
        on address: Address, _ codec: Codec,
        _ make: @escaping @Sendable (Run, Address) -> any StreamHandler
    ) throws(EndpointError) -> Address {
        let run = try running()
        do throws(SystemError) { return try run.listen(on: address, codec, make) } catch {
            throw .failed(error)
        }
    }

    /// Stops to listen; sessions go on. Not to be called in a callback.
    public func stopListening() throws(EndpointError) {
        let run = try running()
        try run.requireOutside()
        run.hub.stopListening()
    }

    /// Stops to listen at one of its addresses; everything else goes on. Not to be called in a callback.
    ///
    /// - Throws: `notStarted`; `failed` with EADDRNOTAVAIL when it does not listen there.
    public func stopListening(at address: Address) throws(EndpointError) {
        let run = try running()
        try run.requireOutside()
        guard run.hub.stopListening(at: address) else {
            throw .failed(SystemError(EADDRNOTAVAIL, attempted: "stop to listen at \(address)"))
        }
    }

    /// The port of the present run, for those who look at its queue and its workers; nil when it is not running.
    public var port: CompletionPort? { current?.hub.port }

    /// Where it listens.
    public var addresses: [Address] {
        (current?.hub.listening ?? []).compactMap { try? $0.socket.localAddress }
    }

    /// All addresses of this machine.
    public static var localAddresses: [Address] { Address.ofThisMachine() }

    /// Who is not let in. A change holds from the next client on; those who are in stay, until `endBanned`.
    public var bans: BanList {
        get { monitor.locked { list } }
        set {
            monitor.locked { list = newValue }
            guard let run = current else { return }
            run.gate.bans = bans
            run.applyBans()
        }
    }

    /// Ends the sessions of those who are banned by now.
    ///
    /// - Returns: How many.
    @discardableResult
    public func endBanned() -> Int {
        let list = bans
        let banned = sessions.filter { $0.address.map { list.contains($0) } ?? false }
        for session in banned { session.end(.banned, .abortive) }
        return banned.count
    }

    /// Requests for a connection that the listeners' filters have dropped.
    package var droppedRequests: Int {
        (current?.hub.listening ?? []).reduce(0) { $0 + ($1.socket.droppedPackets ?? 0) }
    }

    // MARK: Sessions

    /// All sessions at this moment, the oldest first.
    public var sessions: [Session] { (current?.registry.snapshot() ?? []).sorted { $0.id < $1.id } }
    /// How many there are.
    public var connectionCount: Int { current?.registry.count ?? 0 }
    /// The session of that name; nil when it is over.
    public func session(_ id: ConnectionID) -> Session? { current?.registry.find(id) }
    /// The address of a session's other end.
    public func address(of id: ConnectionID) -> Address? { session(id)?.address }

    /// Sends a message to a session.
    ///
    /// - Throws: ENOTCONN when it is over; as `Session.send`.
    public func send(_ message: RawSpan, to id: ConnectionID, token: Int? = nil) throws(SystemError) {
        guard let session = session(id) else { throw SystemError(ENOTCONN, attempted: "send to \(id)") }
        try session.send(message, token: token)
    }

    /// Sends a message to all sessions but one.
    ///
    /// - Returns: How many took it; the others are not reading, or have just ended.
    @discardableResult
    public func sendToAll(_ message: RawSpan, except id: ConnectionID? = nil) -> (accepted: Int, refused: Int)
    {
        var count = (accepted: 0, refused: 0)
        for session in current?.registry.snapshot() ?? [] where session.id != id {
            do throws(SystemError) {
                try session.send(message)
                count.accepted += 1
            } catch { count.refused += 1 }
        }
        return count
    }

    /// Ends a session; false when it is over already.
    @discardableResult
    public func disconnect(
        _ id: ConnectionID, _ way: StreamConnection.Disconnect = .graceful(within: .seconds(5))
    ) -> Bool {
        let session = session(id)
        session?.disconnect(way)
        return session != nil
    }

    /// Ends all sessions. Listeners go on. How many there were.
    @discardableResult
    public func disconnectAll(_ way: StreamConnection.Disconnect = .graceful(within: .seconds(5))) -> Int {
        let all = current?.registry.snapshot() ?? []
        for session in all { session.disconnect(way) }
        return all.count
    }

    // MARK: Files and work

    /// Sends a file to a session. See `Session.sendFile`.
    @discardableResult
    public func sendFile(_ path: String, to id: ConnectionID, as name: String? = nil) throws(TransferError)
        -> TransferID
    {
        guard let session = session(id) else { throw TransferError(.disconnected, path) }
        return try session.sendFile(path, as: name)
    }

    /// Asks a session's other side for a file. See `Session.fetchFile`.
    @discardableResult
    public func fetchFile(_ name: String, from id: ConnectionID, into folder: String? = nil)
        throws(TransferError)
        -> TransferID
    {
        guard let session = session(id) else { throw TransferError(.disconnected, name) }
        return try session.fetchFile(name, into: folder)
    }

    /// Calls files of a session off.
    public func callOff(_ what: CallOff = .all, of id: ConnectionID) { session(id)?.callOff(what) }

    /// Adds a job of the program's own. See `JobQueue.add`.
    public func addJob(_ job: Job) throws(JobError) {
        guard let run = current else { throw .closed }
        try run.jobs.add(job)
    }

    /// Takes the oldest job away from the logical workers; nil when none waits. Its ticket is the caller's, then.
    public func takeJob() -> Job? { current?.jobs.queue.take() }

    /// Changes the number of logical workers, for this time of running. See `WorkerPool.setWorkers`.
    public func setWorkers(_ count: Int, waits: Bool = false) throws(SystemError) {
        guard let run = current else { throw SystemError.closed("have \(count) workers") }
        try run.jobs.setWorkers(count, waits: waits)
    }

    /// What has happened since the start; after a stop, until then.
    public var statistics: Statistics { current?.statistics ?? lastStatistics }
}
