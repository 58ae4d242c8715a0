import CompletionPorts
import Glibc
import Kernel

/// All connections of a server by their names, the pool of their contexts, and the book-keeping.
///
/// Looking up gives a counted reference, which stays good when the lock is given back, whatever happens to the
/// connection. Walking means walking a snapshot. (I4.7) Any thread may use it.
public final class ConnectionTable: @unchecked Sendable {
    /// Where the connections' packets go.
    public let port: CompletionPort
    /// The contexts of all operations.
    public let contexts: FreeList<IOContext>
    /// The most connections at a time.
    public let maximumConnections: Int
    private let closed: @Sendable (ConnectionID, CloseReason) -> Void
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var open: [ConnectionID: Connection] = [:]
    private var ledger = Ledger()
    private var isStopping = false

    /// The book-keeping. When all is over, as many were announced and released as were opened.
    public struct Ledger: Sendable, Equatable {
        /// Connections taken in, since the start.
        public internal(set) var opened = 0 { didSet { peak = max(peak, alive) } }
        /// The most whose context was alive at a time.
        public internal(set) var peak = 0
        /// Ends announced.
        public internal(set) var announced = 0
        /// Contexts of connections whose memory has been given back.
        public internal(set) var released = 0
        /// Connections that were closed at once, since there were too many.
        public internal(set) var refused = 0
        /// The ends announced, by their reason.
        public internal(set) var reasons: [CloseReason: Int] = [:]
        /// Connections whose context is alive: open, or closed with an operation still under way.
        public var alive: Int { opened - released }
    }

    /// An empty table.
    ///
    /// - Parameters:
    ///   - closed: Told of every connection's end, once, by whichever thread caused it.
    public init(
        port: CompletionPort, maximumConnections: Int = 12_000, maximumFreeContexts: Int = 1_024,
        closed: @escaping @Sendable (ConnectionID, CloseReason) -> Void = { _, _ in }
    ) {
        self.port = port
        self.maximumConnections = maximumConnections
        self.closed = closed
        let (all, isBeyond) = maximumConnections.multipliedReportingOverflow(by: 2)
        contexts = FreeList(maximumFree: maximumFreeContexts, maximumInUse: isBeyond ? .max : all) {
            IOContext()
        }
    }

    /// The counters.
    public var counters: Ledger { monitor.locked { ledger } }

    // MARK: In and out

    /// Takes a connection in: gives it a context, associates it under that context's address, and posts its first
    /// receive. The reference that this call holds is the set-up's share: however soon the client leaves, the context
    /// stays until this call is through. (I4.2)
    ///
    /// In the table it is from the moment on when it is associated, not before: others find it there and send to it,
    /// and a send that completed on a socket without a port would bring no packet.
    ///
    /// - Throws: ENOBUFS when there are too many; EBADF when the table is closed; what the first receive met. Then the
    ///   socket is closed.
    @discardableResult
    public func admit(_ socket: Socket) throws(SystemError) -> Connection {
        let connection = Connection(socket, self)
        monitor.locked { ledger.opened += 1 }
        do throws(SystemError) {
            try port.associate(socket, key: connection.key)
            try insert(connection)
            try connection.start()
        } catch {
            connection.close(CloseReason(error))
            throw error
        }
        return connection
    }

    private func insert(_ connection: Connection) throws(SystemError) {
        let refusal: Int32? = monitor.locked {
            if isStopping { return EBADF }
            if open.count >= maximumConnections {
                ledger.refused += 1
                return ENOBUFS
            }
            open[connection.id] = connection
            return nil
        }
        if let refusal { throw SystemError(refusal, attempted: "take a connection in") }
    }

    /// The connection of that name; nil when it has ended. A name never comes to mean another one.
    public func find(_ id: ConnectionID) -> Connection? { monitor.locked { open[id] } }

    /// All that are open at this moment, in no order. Any of them may be closed by the time it is looked at.
    public func snapshot() -> [Connection] { monitor.locked { Array(open.values) } }

    /// Sends to everybody who is connected now. No lock is held meanwhile, so callbacks may close and take in as they
    /// like. Returns how many posts were accepted; the others have just left, or do not read.
    @discardableResult
    public func notifyAll(_ bytes: [UInt8]) -> Int {
        var accepted = 0
        for connection in snapshot() {
            if (try? connection.notify(bytes)) != nil { accepted += 1 }
        }
        return accepted
    }

    func remove(_ connection: Connection) {
        monitor.locked { open[connection.id] = nil }
    }

    func announce(_ connection: Connection, _ reason: CloseReason) {
        monitor.locked {
            ledger.announced += 1
            ledger.reasons[reason, default: 0] += 1
        }
        closed(connection.id, reason)
    }

    func wasReleased() {
        monitor.locked {
            ledger.released += 1
            monitor.broadcast()
        }
    }

    // MARK: Contexts

    func context() throws(SystemError) -> IOContext {
        guard let context = contexts.take() else {
            throw SystemError(ENOBUFS, attempted: "take a context")
        }
        return context
    }

    /// An operation is through: first its context goes home, then the reference to the connection goes.
    func finish(_ context: IOContext) {
        let connection = context.connection
        context.connection = nil
        context.purpose = .none
        contexts.giveBack(context)
        withExtendedLifetime(connection) {}
    }

    /// What a worker does with a packet. Returns false when it is none of this table's.
    @discardableResult
    public func handle(_ packet: Packet, _ error: SystemError?) -> Bool {
        guard !packet.isPosted, let context = packet.operation as? IOContext, context.connection != nil else {
            return false
        }
        Connection.of(packet).handle(context, packet.bytes, error)
        return true
    }

    /// Closes every connection, takes no more in, and waits until the last context is released.
    ///
    /// - Returns: false when that was not so in time. Workers have to be at work meanwhile.
    public func close(within patience: Duration = .seconds(10)) -> Bool {
        monitor.locked { isStopping = true }
        for connection in snapshot() { connection.close() }
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while ledger.alive > 0 {
                if !monitor.wait(until: deadline) { return ledger.alive == 0 }
            }
            return true
        }
    }
}
