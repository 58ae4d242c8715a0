import CompletionPorts
import Contexts
import Kernel
import PrepostedAccepts

/// Connections whose bytes come in order: a port, its workers, the pool of chunks, listeners and clients.
///
/// It is a server as soon as it listens and a client as soon as it connects; what it does is its handlers' business.
public final class StreamHub: Sendable {
    private let table: StreamTable
    private let workers: WorkerGroup

    /// The limits and choices.
    public struct Options: Sendable {
        /// Threads that handle packets.
        public var workers = 2
        /// How many of them may run at a time; 0 means as many as there are processors.
        public var concurrency = 0
        /// Packets that a worker takes at a time. More than 1 is faster with handlers that are short and never block.
        public var batch = 1
        /// Reads that each connection has pending, 1 to 64. A chunk that somebody keeps counts.
        public var pendingReads = 2
        /// Bytes that fit into a chunk.
        public var chunkCapacity = 4096
        /// Whether chunks reach the handler in order. Without, several workers call it at once, in any order.
        public var ordersReads = true
        /// Whether tickets are kept. Without, what is sent first goes first.
        public var ordersSends = true
        /// Connections at a time. One more is closed at once, and counted.
        public var maximumConnections = 12_000
        /// Contexts that a connection has for sending, open tickets included.
        public var maximumPendingSends = 64
        /// Chunks that are kept for reuse.
        public var maximumFreeChunks = 1024
        /// The accepts of each listener.
        public var accepts: AcceptPool.Options
        /// Whether and how the system asks silent peers.
        public var keepAlive: KeepAlive? = KeepAlive()
        /// The number of each connection's first read: a demonstration may begin near the end of the circle.
        public var firstNumber = SequenceNumber(0)
        /// Looks on. For demonstrations and tests.
        public var probe: StreamProbe?
        /// The port's own choices, the driver among them.
        public var port = CompletionPort.Options()

        /// The defaults.
        public init() {
            accepts = AcceptPool.Options()
            // A client need not say anything first.
            accepts.receiveLength = 0
        }
    }

    /// What has happened so far, and what is there now. When all is over, as many were announced and released as were
    /// opened, and no chunk is in use.
    public struct Counters: Sendable, Equatable {
        /// Connections taken in or begun, since the start.
        public internal(set) var opened = 0
        /// Handlers that have heard of the end.
        public internal(set) var announced = 0
        /// Connections whose memory has been given back.
        public internal(set) var released = 0
        /// Connections that were closed at once, since there were too many.
        public internal(set) var refused = 0
        /// The ends announced, by their reason.
        public internal(set) var reasons: [CloseReason: Int] = [:]
        /// The windows of those that are over: the most that waited in one, and how many came early in all.
        public internal(set) var window = StreamConnection.WindowCounters()
        /// The chunks of all connections.
        public internal(set) var chunks: FreeList<Chunk>.Counters
        /// Connections that somebody still has a reference to.
        public var alive: Int { opened - released }
    }

    /// Starts the workers.
    ///
    /// - Throws: EINVAL for impossible options, EMFILE, EAGAIN.
    public init(_ options: Options = Options()) throws(SystemError) {
        guard (1...64).contains(options.pendingReads), options.chunkCapacity > 0,
            (1...65_536).contains(options.maximumPendingSends), options.maximumConnections > 0
        else { throw SystemError.invalid("make a hub without room for a connection") }
        let port = try CompletionPort(concurrency: options.concurrency, options: options.port)
        let table = StreamTable(port, options)
        self.table = table
        workers = try WorkerGroup(options.workers, on: port, batch: options.batch) { packet, error in
            table.handle(packet, error)
        }
    }

    /// Where the packets go. A handler that blocks says so with `port.blocking`.
    public var port: CompletionPort { table.port }

    /// The interface that carries the operations out.
    public var driverKind: DriverKind { table.port.driverKind }

    /// What has happened so far.
    public var counters: Counters { table.counters }

    /// The connection of that name; nil when it is over.
    public func find(_ id: ConnectionID) -> StreamConnection? { table.find(id) }

    /// All connections at this moment, in no order.
    public var connections: [StreamConnection] { table.snapshot() }

    /// Listens, and gives each client a handler.
    ///
    /// - Returns: The address, with the port that was free.
    /// - Throws: EADDRINUSE when the address is taken, EBADF after `stop`.
    @discardableResult
    public func listen(
        on address: Address = .loopback(),
        handler: @escaping @Sendable (StreamConnection) -> any StreamHandler
    ) throws(SystemError) -> Address {
        let listener = try Socket.listener(on: address)
        let actual = try listener.localAddress
        try table.listen(listener, handler)
        return actual
    }

    /// Connects. The handler hears `opened` when the connection stands, or `closed` if it never does.
    ///
    /// - Throws: EADDRNOTAVAIL when no local port is left, ENOBUFS when there are too many connections, EBADF after `stop`.
    @discardableResult
    public func connect(to address: Address, handler: any StreamHandler) throws(SystemError)
        -> StreamConnection
    {
        try table.connect(address, handler)
    }

    /// Takes a connection over that somebody else has made. It may not belong to a port yet. `opened` is called before this
    /// returns.
    ///
    /// - Throws: ENOBUFS when there are too many, EBADF after `stop`; then the socket is closed.
    @discardableResult
    public func adopt(_ socket: Socket, handler: any StreamHandler) throws(SystemError) -> StreamConnection {
        let connection = StreamConnection(socket, table)
        connection.handler = handler
        try table.admit(connection)
        connection.start()
        return connection
    }

    /// Stops to listen, closes every connection, waits until everything is back in the pool, and ends the workers. Not to
    /// be called by a handler.
    ///
    /// - Returns: Whether every handler has heard of the end and no chunk is in use. False after 10 seconds: then somebody
    ///   has not given a chunk back.
    @discardableResult
    public func stop() -> Bool {
        let isClean = table.stop(within: .seconds(10))
        workers.stop()
        return isClean
    }
}

/// Looks on while chunks go their way: tests hold workers back here, demonstrations write down what they see.
public struct StreamProbe: Sendable {
    /// A worker has a chunk's packet, and has told nobody yet.
    public var arrived: @Sendable (Chunk) -> Void = { _ in }
    /// A read has its number, and is not posted yet. The connection's lock is held.
    public var numbered: @Sendable (Chunk) -> Void = { _ in }
    /// A read is about to be put into the window. The connection's lock is held.
    public var placed: @Sendable (Chunk) -> Void = { _ in }

    /// A probe that does nothing.
    public init() {}
}
