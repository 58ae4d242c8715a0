import CompletionPorts
import Contexts
import Glibc
import Kernel
import PrepostedAccepts
import Timeline

/// Connections whose bytes come in order: a port, its workers, the pool of chunks, listeners and clients.
///
/// It is a server as soon as it listens and a client as soon as it connects; what it does is its handlers' business. What
/// makes it stops it: until then it stays, with its threads.
public final class StreamHub: @unchecked Sendable {
    /// Where the packets go. A handler that blocks says so with `port.blocking`.
    public let port: CompletionPort
    let options: Options
    let chunks: FreeList<Chunk>
    /// What clients are read into that send much.
    public let largerBuffers: LargerBuffers
    let receives: (any ReceivePolicy)?
    /// The connections that stand, or are being made.
    let registry: ConnectionRegistry<StreamConnection>
    /// Those that only hear why they may not stay.
    let partings = ConnectionRegistry<StreamConnection>(limit: Parting.maximum)
    private let workers: WorkerGroup
    private let lock = Lock()
    // Guarded by the lock.
    private var listeners: [StreamListener] = []
    private var clock: PeriodicTask?
    private var rounds: [@Sendable (UInt64) -> Void] = []
    private var watched: [ConnectionID] = []
    private var past = Sums()
    private var isStopping = false

    /// What is left of connections that are over, and of clients that never had one.
    struct Sums {
        var window = StreamConnection.WindowCounters()
        var traffic = Traffic()
        var reads = ReadCounters()
        var (declined, dropped) = (0, 0)
    }

    /// Starts the workers.
    ///
    /// - Throws: EINVAL for impossible options, EMFILE, EAGAIN.
    public init(_ options: Options = Options()) throws(SystemError) {
        let firstData = options.pendingReads.multipliedReportingOverflow(by: options.chunkCapacity)
        guard (1...64).contains(options.pendingReads), options.chunkCapacity > 0,
            (1...65_536).contains(options.maximumPendingSends), options.maximumConnections > 0,
            firstData.overflow || options.accepts.receiveLength <= firstData.partialValue
        else { throw SystemError.invalid("make a hub without room for a connection") }
        self.options = options
        port = try CompletionPort(concurrency: options.concurrency, options: options.port)
        receives = options.receives
        largerBuffers = LargerBuffers(upTo: options.maximumReadSize, limit: options.maximumLargerBytes)
        registry = ConnectionRegistry(limit: options.maximumConnections)
        let capacity = options.chunkCapacity
        let each = options.pendingReads + options.maximumPendingSends
        let (all, isBeyond) = options.maximumConnections.multipliedReportingOverflow(by: each)
        chunks = FreeList(
            maximumFree: options.maximumFreeChunks,
            maximumInUse: isBeyond ? .max : all + Parting.maximum * options.pendingReads
        ) { Chunk(capacity: capacity) }
        workers = try WorkerGroup(
            options.workers, on: port, batch: options.batch, named: options.workerName,
            handler: PacketOwner.handle)
    }

    /// The interface that carries the operations out.
    public var driverKind: DriverKind { port.driverKind }

    /// The connection of that name; nil when it is over.
    public func find(_ id: ConnectionID) -> StreamConnection? { registry.find(id) }

    /// All connections at this moment, in no order.
    public var connections: [StreamConnection] { registry.snapshot() }

    /// How many they are. It costs the same for one and for a million.
    public var connectionCount: Int { registry.count }

    // MARK: In

    /// Listens, and gives each client a handler.
    ///
    /// - Parameters:
    ///   - admit: Asked about each client, by any worker, before anything is made for it: with its address and this end's. To
    ///     be short.
    ///   - lost: Called for a client that was let in and could not be taken in: what `admit` has done for it is to be undone.
    ///   - handler: Makes the handler of a client that is let in.
    /// - Returns: The address, with the port that was free.
    /// - Throws: EADDRINUSE when the address is taken, EBADF after `stop`, EAGAIN when the system gives no thread; then it does
    ///   not listen.
    @discardableResult
    public func listen(
        on address: Address = .loopback(), backlog: Int = 4096,
        admit: @escaping @Sendable (_ remote: Address?, _ local: Address?) -> Admission = { _, _ in .welcome
        },
        lost: @escaping @Sendable (_ remote: Address?) -> Void = { _ in },
        handler: @escaping @Sendable (StreamConnection) -> any StreamHandler
    ) throws(SystemError) -> Address {
        let socket = try Socket.listener(on: address, backlog: backlog)
        setOptions(of: socket)
        let actual = try socket.localAddress
        let pool = try AcceptPool(on: socket, options: options.accepts) { [self] arrival in
            arrived(arrival, admit(arrival.remote, arrival.local), lost, handler)
        }
        let listener = StreamListener(pool, socket)
        try port.associate(socket, key: listener.key)
        try lock.locked { () throws(SystemError) in
            if isStopping { throw SystemError.closed("listen") }
            listeners.append(listener)
        }
        do throws(SystemError) { try pool.start() } catch {
            stopListening(at: actual)
            throw error
        }
        return actual
    }

    private func arrived(
        _ arrival: Arrival, _ admission: Admission, _ lost: (Address?) -> Void,
        _ handler: (StreamConnection) -> any StreamHandler
    ) {
        let socket = arrival.client.socket
        switch admission {
        case .welcome:
            let connection = StreamConnection(
                socket, self, registry, local: arrival.local, remote: arrival.remote)
            guard (try? take(connection)) != nil else { return lost(arrival.remote) }
            connection.start(handler(connection), with: arrival.firstData)
        case .refuse(let words):
            let connection = StreamConnection(
                socket, self, partings, local: arrival.local, remote: arrival.remote)
            guard (try? take(connection)) != nil else { return lock.locked { past.dropped += 1 } }
            lock.locked { past.declined += 1 }
            connection.setLimit(Parting.patience, .cancelled)
            connection.start(Parting(words))
        case .drop:
            lock.locked { past.dropped += 1 }
            try? socket.setAbortiveClose()
            socket.close()
        }
    }

    /// The sockets it listens with, and what their accepts have seen.
    public var listening: [(socket: Socket, accepts: AcceptPool.Counters)] {
        lock.locked { listeners }.map { ($0.socket, $0.pool.counters) }
    }

    /// Stops to listen. Connections go on. Not to be called by a handler.
    public func stopListening() {
        for listener in lock.locked({ exchange(&listeners, with: []) }) { listener.pool.stop() }
    }

    /// Stops to listen at one address. Everything else goes on. Not to be called by a handler.
    ///
    /// - Returns: False when it does not listen there.
    @discardableResult
    public func stopListening(at address: Address) -> Bool {
        let last = lock.locked {
            listeners.firstIndex { (try? $0.socket.localAddress) == address }.map { listeners.remove(at: $0) }
        }
        last?.pool.stop()
        return last != nil
    }

    /// Connects. The handler hears `opened` when the connection stands, or `closed` if it never does.
    ///
    /// - Parameters:
    ///   - local: The address to connect from; by default the system chooses one that leads there.
    ///   - time: How long that may take; then it is closed, as one whose other side does not answer.
    /// - Throws: EADDRNOTAVAIL when no local port is left, ENOBUFS when there are too many connections, EBADF after `stop`.
    @discardableResult
    public func connect(
        to address: Address, from local: Address? = nil, within time: Duration = .seconds(10),
        handler: any StreamHandler
    ) throws(SystemError) -> StreamConnection {
        try startClock()
        let socket = try Socket(boundTo: local ?? (address.isIPv6 ? .any6() : .any()))
        setOptions(of: socket)
        let connection = StreamConnection(socket, self, registry, handler, remote: address)
        try take(connection)
        connection.setLimit(time, CloseReason(SystemError(ETIMEDOUT, attempted: "connect")))
        connection.connect(to: address)
        return connection
    }

    /// Takes a connection over that was made elsewhere. It may not belong to a port yet. `opened` is called before this
    /// returns.
    ///
    /// - Throws: ENOBUFS when there are too many, EBADF after `stop`; then the socket is closed.
    @discardableResult
    public func adopt(_ socket: Socket, handler: any StreamHandler) throws(SystemError) -> StreamConnection {
        setOptions(of: socket)
        let connection = StreamConnection(
            socket, self, registry, local: try? socket.localAddress, remote: try? socket.remoteAddress)
        try take(connection)
        connection.start(handler)
        return connection
    }

    /// Takes a connection in: from here on it is announced and released. If it cannot be, its socket is closed.
    private func take(_ connection: StreamConnection) throws(SystemError) {
        let socket = connection.socket
        let choice = connection.registry === partings ? nil : options.ports
        do throws(SystemError) {
            if lock.locked({ isStopping }) { throw SystemError.closed("take a connection in") }
            // No other thread has a reference yet.
            if let choice { connection.currentPort = choice.port(for: connection) }
            try connection.currentPort.associate(socket, key: connection.key)
            try connection.registry.insert(connection, as: connection.id)
            connection.isRegistered = true
        } catch {
            choice?.ended(connection)
            // A client that has sent something might lose the answer to it, and there is none.
            if connection.registry === partings { try? socket.setAbortiveClose() }
            socket.close()
            throw error
        }
        tellCount()
    }

    /// On a listener: every accepted socket inherits it. On Windows it does so only after `SO_UPDATE_ACCEPT_CONTEXT`.
    private func setOptions(of socket: Socket) {
        // A client that is gone already will be noticed by its first read.
        try? socket.setNoDelay()
        try? options.keepAlive?.apply(to: socket)
    }

    // MARK: Out

    func remove(_ connection: StreamConnection, _ reason: CloseReason) {
        let (window, traffic, reads) = connection.totals
        let listeners = lock.locked {
            past.window.mostWaiting = max(past.window.mostWaiting, window.mostWaiting)
            past.window.early += window.early
            past.traffic.add(traffic)
            past.reads.add(reads)
            return isStopping ? [] : self.listeners
        }
        if connection.registry !== partings { options.ports?.ended(connection) }
        connection.registry.remove(connection.id, reason)
        tellCount()
        for listener in listeners { listener.pool.descriptorClosed() }
    }

    /// What the connections that are over have left.
    var sums: Sums { lock.locked { past } }

    /// Under the lock, so that the latest number comes last.
    private func tellCount() {
        lock.locked { receives?.connectionsAre(registry.count) }
        settle()
    }

    /// Lets the receive policy do what it may not do under a connection's lock.
    func settle() { receives?.settle { registry.snapshot() } }

    /// Lets a worker look at a connection, which has counted this.
    func wake(_ connection: StreamConnection, at port: CompletionPort) {
        let operation = StreamOperation()
        Recorder.label(operation.identity, "go on")
        operation.connection = connection
        // A port that is closed has no worker for it: then it is done here.
        if (try? port.post(key: connection.key, operation: operation)) == nil { connection.wakeCame() }
    }

    /// Brings a slot that a policy has served to a worker. Until it is there, the connection stays with its port.
    func wake(_ connection: StreamConnection, _ slot: Chunk) {
        let port = connection.port
        if (try? port.post(key: connection.key, operation: slot)) == nil { connection.granted(slot) }
    }

    // MARK: All of them

    /// Sends the same bytes on every connection that stands, with one copy for all of them.
    ///
    /// - Returns: How many sends were accepted; the other connections do not read, or have just ended.
    @discardableResult
    public func sendToAll(_ bytes: UnsafeRawBufferPointer) -> (accepted: Int, refused: Int) {
        let shared = SharedBytes(bytes)
        var count = (accepted: 0, refused: 0)
        for connection in connections {
            if (try? connection.send(shared)) != nil { count.accepted += 1 } else { count.refused += 1 }
        }
        return count
    }

    /// Ends every connection. Listeners go on.
    public func disconnectAll(_ way: StreamConnection.Disconnect) {
        for connection in connections { connection.disconnect(way) }
    }

    /// Stops to listen, ends every connection, waits until everything is back in the pool, and ends the workers. Not to
    /// be called by a handler.
    ///
    /// - Parameter grace: How long connections may take to finish (`Disconnect.graceful`); by default they are closed at once.
    /// - Returns: Whether every handler has heard of the end and no chunk is in use. False 10 seconds after the closing: then
    ///   a handler has not given a chunk back.
    @discardableResult
    public func stop(within grace: Duration = .zero) -> Bool {
        let listeners = lock.locked {
            isStopping = true
            return self.listeners
        }
        for listener in listeners { listener.pool.stop() }
        if grace > .zero {
            disconnectAll(.graceful(within: grace))
            let deadline = Deadline.after(grace)
            while registry.count > 0, !deadline.hasPassed { usleep(1_000) }
        }
        let deadline = Deadline.after(.seconds(10))
        var isClean = true
        for registry in [registry, partings] {
            isClean = registry.closeAll(until: .announced) { $0.close() } && isClean
        }
        // Chunks that a handler keeps come back without a word.
        while chunks.counters.inUse > 0, !deadline.hasPassed { usleep(1_000) }
        workers.stop()
        let clock = lock.locked {
            // The pools and the rounds refer to this hub.
            (self.listeners, rounds) = ([], [])
            return self.clock.take()
        }
        clock?.stop()
        return isClean && chunks.counters.inUse == 0
    }

    // MARK: The clock

    /// How often it is looked for what has taken too long.
    static let round = Duration.milliseconds(50)

    /// Calls `body` with the present moment, again and again until `stop`: the clock of what is built on this hub.
    ///
    /// - Throws: EAGAIN when the system allows no more threads.
    public func everyRound(_ body: @escaping @Sendable (_ now: UInt64) -> Void) throws(SystemError) {
        try startClock()
        lock.locked { rounds.append(body) }
    }

    /// There is no clock, and no thread for it, before something has a limit.
    private func startClock() throws(SystemError) {
        try lock.locked { () throws(SystemError) in
            if clock == nil, !isStopping {
                clock = try PeriodicTask("stream clock", every: StreamHub.round) { now in
                    self.lookAtLimits(now)
                }
            }
        }
    }

    private func lookAtLimits(_ now: UInt64) {
        let (rounds, watched) = lock.locked { (self.rounds, exchange(&self.watched, with: [])) }
        for id in watched where (registry.find(id) ?? partings.find(id))?.isWatched(now) == true {
            lock.locked { self.watched.append(id) }
        }
        for body in rounds { body(now) }
    }

    /// Has the clock look at a connection's limit. Without a clock it ends at once.
    func watch(_ connection: StreamConnection) {
        guard (try? startClock()) != nil else { return connection.close(.outOfResources) }
        lock.locked { watched.append(connection.id) }
    }
}
