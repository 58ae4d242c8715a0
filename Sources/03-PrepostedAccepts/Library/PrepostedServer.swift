import CompletionPorts
import Kernel

/// The stage's server: the connections of chapter 02's echo server, with a pool of accepts in front of them.
///
/// A client's first bytes come with its accept and are echoed before anything else. When a client has ended, its socket
/// is disconnected for reuse, and the next client gets it.
public final class PrepostedServer: Sendable {
    /// Where it listens.
    public let address: Address
    private let port: CompletionPort
    private let workers: WorkerGroup
    private let pool: AcceptPool
    private let clients: Clients

    /// The server's limits and choices.
    public struct Options: Sendable {
        /// Threads that handle packets.
        public var workers = 1
        /// How many of them may run at a time; 0 means as many as there are processors.
        public var concurrency = 0
        /// Connections at a time. One more is closed at once, and counted.
        public var maximumConnections = 12_000
        /// The pool of accepts.
        public var pool = AcceptPool.Options()
        /// The port's own choices.
        public var port = CompletionPort.Options()

        /// The defaults.
        public init() {}
    }

    /// What a server has done so far.
    public struct Counters: Sendable, Equatable {
        /// Connections open now.
        public var connections = 0
        /// The most at a time.
        public var peak = 0
        /// Connections closed at once, since there were too many.
        public var refused = 0
        /// Connections that failed rather than ended: reset by their client, mostly.
        public var failed = 0
        /// Messages sent back.
        public var echoes = 0
    }

    /// Starts to listen and to serve.
    ///
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible options, EMFILE.
    public init(on address: Address = .loopback(), options: Options = Options()) throws(SystemError) {
        let listener = try Socket.listener(on: address)
        self.address = try listener.localAddress
        try listener.setNoDelay()
        let port = try CompletionPort(concurrency: options.concurrency, options: options.port)
        try port.associate(listener, key: Key.listener)
        let clients = Clients(port, options.maximumConnections)
        let pool = try AcceptPool(on: listener, options: options.pool) { clients.welcome($0) }
        clients.pool = pool
        self.port = port
        self.clients = clients
        self.pool = pool
        workers = try WorkerGroup(options.workers, on: port) { packet, error in
            if packet.key == Key.connection {
                clients.advance(
                    unsafeDowncast(packet.operation!, to: EchoConnection.self), packet.bytes, error)
            } else {
                pool.handle(packet, error)
            }
        }
        do throws(SystemError) {
            try pool.start()
        } catch {
            workers.stop()
            throw error
        }
    }

    /// What the server has done so far.
    public var counters: Counters { clients.counters }

    /// What its pool of accepts has done so far.
    public var accepts: AcceptPool.Counters { pool.counters }

    /// The interface that carries its operations out.
    public var driverKind: DriverKind { port.driverKind }

    /// Closes every connection, those that come in at this moment included, and returns when all packets are handled
    /// and all workers have ended (I3.8).
    public func stop() {
        pool.stop()
        clients.closeAll()
        workers.stop()
        clients.pool = nil
    }
}

/// What the port gives back with each packet.
private enum Key {
    static let listener: UInt = 0
    static let connection: UInt = 1
}

/// The connections of a server, and what happens to them.
private final class Clients: @unchecked Sendable {
    private let port: CompletionPort
    private let maximum: Int
    private let monitor = Monitor()
    /// Set before the first packet, and given back when the last has been handled: the pool refers to these clients.
    var pool: AcceptPool?
    // Guarded by the monitor.
    private var open: [ObjectIdentifier: EchoConnection] = [:]
    private var count = PrepostedServer.Counters()
    private var isStopping = false

    init(_ port: CompletionPort, _ maximum: Int) {
        self.port = port
        self.maximum = maximum
    }

    var counters: PrepostedServer.Counters { monitor.locked { count } }

    /// A client has come, and has said something.
    func welcome(_ arrival: Arrival) {
        // The first bytes are copied before the accept's block is posted again, and answered first (I3.5).
        let connection = EchoConnection(arrival.client.socket, received: arrival.firstData)
        let isWelcome = monitor.locked {
            guard !isStopping, open.count < maximum else {
                count.refused += 1
                return false
            }
            open[ObjectIdentifier(connection)] = connection
            count.connections += 1
            count.peak = max(count.peak, count.connections)
            return true
        }
        guard isWelcome else { return connection.socket.close() }
        let first = arrival.firstData.count
        do throws(SystemError) {
            // A socket that is used again belongs to the port already.
            if connection.socket.completionKey == nil {
                try port.associate(connection.socket, key: Key.connection)
            }
            if first > 0 {
                try connection.socket.send(connection, from: .init(rebasing: connection.memory[..<first]))
            } else {
                try connection.socket.receive(connection, into: connection.memory)
            }
        } catch {
            end(connection, failed: true)
        }
    }

    /// The connection's operation has completed: the next one is posted.
    func advance(_ connection: EchoConnection, _ bytes: Int, _ error: SystemError?) {
        guard error == nil else { return end(connection, failed: true) }
        do throws(SystemError) {
            switch connection.kind {
            case .receive where bytes > 0:
                try connection.socket.send(connection, from: .init(rebasing: connection.memory[..<bytes]))
            case .receive:
                // The client has ended: this side does, too, and the socket is as new (I3.10).
                try connection.socket.disconnect(connection, reuse: true)
            case .send:
                monitor.locked { count.echoes += 1 }
                try connection.socket.receive(connection, into: connection.memory)
            default:
                end(connection, failed: false)
            }
        } catch {
            end(connection, failed: true)
        }
    }

    private func end(_ connection: EchoConnection, failed: Bool) {
        let isReusable = !failed
        if failed { connection.socket.close() }
        monitor.locked {
            guard open.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
            count.connections -= 1
            if failed, !isStopping { count.failed += 1 }
            if open.isEmpty { monitor.broadcast() }
        }
        if isReusable { pool?.reuse(connection.socket) } else { pool?.descriptorClosed() }
    }

    /// Closes everything and waits for the packets of what was pending.
    func closeAll() {
        let connections = monitor.locked {
            isStopping = true
            return Array(open.values)
        }
        for connection in connections { connection.socket.close() }
        let deadline = Deadline.after(.seconds(10))
        monitor.locked {
            while !open.isEmpty, monitor.wait(until: deadline) {}
        }
    }
}
