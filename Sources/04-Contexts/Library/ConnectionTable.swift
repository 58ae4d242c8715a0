import CompletionPorts
import Glibc
import Kernel

/// The connections of a server with what their operations need: the port, the pool of contexts, and the clock's rounds.
///
/// Who they are and what became of them is the registry's business. Any thread may use it.
public final class ConnectionTable: Sendable {
    /// Where the connections' packets go.
    public let port: CompletionPort
    /// The contexts of all operations.
    public let contexts: FreeList<IOContext>
    /// The connections by their names.
    public let registry: ConnectionRegistry<Connection>
    private let closed: @Sendable (ConnectionID, CloseReason) -> Void

    /// An empty table.
    ///
    /// - Parameters:
    ///   - closed: Told of every connection's end, once, by whichever thread caused it.
    public init(
        port: CompletionPort, maximumConnections: Int = 12_000, maximumFreeContexts: Int = 1_024,
        closed: @escaping @Sendable (ConnectionID, CloseReason) -> Void = { _, _ in }
    ) {
        self.port = port
        self.closed = closed
        registry = ConnectionRegistry(limit: maximumConnections)
        let (all, isBeyond) = maximumConnections.multipliedReportingOverflow(by: 2)
        contexts = FreeList(maximumFree: maximumFreeContexts, maximumInUse: isBeyond ? .max : all) {
            IOContext()
        }
    }

    /// The counters of the registry.
    public var counters: ConnectionCounters { registry.counters }

    // MARK: In and out

    /// Takes a connection in: gives it a context, associates it under that context's address, and posts its first
    /// receive. The reference that this call holds is the set-up's share: however soon the client leaves, the context
    /// stays until this call returns. (I4.2)
    ///
    /// In the registry it is from the moment on when it is associated, not before: others find it there and send to it,
    /// and a send that completed on a socket without a port would bring no packet.
    ///
    /// - Throws: ENOBUFS when there are too many; EBADF when the table is closed; what the first receive met. Then the
    ///   socket is closed.
    @discardableResult
    public func admit(_ socket: Socket) throws(SystemError) -> Connection {
        let connection = Connection(socket, self)
        do throws(SystemError) {
            try port.associate(socket, key: connection.key)
            try registry.insert(connection, as: connection.id)
            connection.isRegistered = true
            try connection.start()
        } catch {
            connection.close(CloseReason(error))
            throw error
        }
        return connection
    }

    /// Takes a connection out, and tells of its end if it was in.
    func remove(_ connection: Connection, _ reason: CloseReason) {
        if registry.remove(connection.id, reason) { closed(connection.id, reason) }
    }

    /// Sends to all that are connected now. No lock is held meanwhile, so callbacks may close and take in as they
    /// like. Returns how many posts were accepted; the others have just left, or do not read.
    @discardableResult
    public func pushAll(_ bytes: [UInt8]) -> Int {
        var accepted = 0
        for connection in registry.snapshot() {
            if (try? connection.push(bytes)) != nil { accepted += 1 }
        }
        return accepted
    }

    /// A round of the clock: closes every connection whose client has been silent for so long, dead ones and those that
    /// only hold a place.
    public func tick(now: UInt64, idleLimit: Duration) {
        for connection in registry.snapshot() where connection.silence(at: now) >= idleLimit {
            connection.close()
        }
    }

    /// A round of the clock: closes every connection whose peer does not answer what was sent to it.
    public func tick(now: UInt64, _ peers: inout UnansweredPeers) {
        for connection in registry.snapshot() where peers.isGone(connection.id, connection.socket, now: now) {
            connection.close(.reset)
        }
        peers.endRound()
    }

    // MARK: Contexts

    func context() throws(SystemError) -> IOContext {
        guard let context = contexts.take() else {
            throw SystemError(ENOBUFS, attempted: "take a context")
        }
        return context
    }

    /// An operation has completed: first its context goes home, then the reference to the connection goes.
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
        registry.closeAll(within: patience) { $0.close() }
    }
}
