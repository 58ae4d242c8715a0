import CKernel
import Glibc
import Kernel

/// The stage's server: gives every client its own bytes back, for any number of clients, with a few workers.
///
/// One operation per connection goes round: receive, send, receive. So there is never more than one packet of a
/// connection under way, and its bytes need no lock.
public final class EchoServer: Sendable {
    /// Where it listens.
    public let address: Address
    private let port: CompletionPort
    private let workers: WorkerGroup
    private let clients: Clients

    /// Bytes of buffer that each connection has.
    public static let bufferSize = 1024
    /// Packets that a worker takes at a time: its handlers are short and hardly ever block.
    static let batch = 16

    /// The server's limits and choices.
    public struct Options: Sendable {
        /// Threads that handle packets.
        public var workers = 1
        /// How many of them may run at a time; 0 means as many as there are processors.
        public var concurrency = 0
        /// Connections at a time. One more is closed at once, and counted.
        public var maximumConnections = 12_000
        /// Accepts that wait for clients.
        public var pendingAccepts = 8
        /// The port's own choices.
        public var port = CompletionPort.Options()

        /// The defaults. Its handlers post and return, so requests go to the system after the batch.
        public init() { port.submission = .afterBatch }
    }

    /// What a server has done so far.
    public struct Counters: Sendable, Equatable {
        /// Connections open now.
        public var connections = 0
        /// Connections taken, since the start.
        public var accepted = 0
        /// Connections closed at once, since there were too many.
        public var refused = 0
        /// Connections that failed rather than ended: reset by their client, mostly.
        public var failed = 0
        /// Accepts that failed; the server went on.
        public var failedAccepts = 0
    }

    /// Starts to listen and to serve.
    ///
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible options, EMFILE.
    public init(on address: Address = .loopback(), options: Options = Options()) throws(SystemError) {
        guard options.pendingAccepts > 0, options.maximumConnections > 0 else {
            throw SystemError.invalid("start a server without room for a client")
        }
        let listener = try Socket.listener(on: address)
        self.address = try listener.localAddress
        // Set once: every accepted socket inherits it.
        try listener.setNoDelay()
        let port = try CompletionPort(concurrency: options.concurrency, options: options.port)
        try port.associate(listener, key: Key.listener)
        let clients = Clients(listener, port, options.maximumConnections)
        self.port = port
        self.clients = clients
        workers = try WorkerGroup(options.workers, on: port, batch: EchoServer.batch) { packet, error in
            // The key says whose packet it is. So there is no need to ask what kind of operation came.
            if packet.key == Key.connection {
                clients.advance(
                    unsafeDowncast(packet.operation!, to: EchoConnection.self), packet.bytes, error)
            } else if let acceptance = packet.operation as? Acceptance {
                clients.accepted(acceptance, error)
            }
        }
        do throws(SystemError) {
            for _ in 0..<options.pendingAccepts { try clients.listener.prepost(Acceptance()) }
        } catch {
            stop()
            throw error
        }
    }

    /// What the server has done so far.
    public var counters: Counters { clients.counters }

    /// The interface that carries its operations out.
    public var driverKind: DriverKind { port.driverKind }

    /// Closes every connection and returns when all packets are handled and all workers have ended.
    public func stop() {
        clients.closeAll()
        workers.stop()
    }
}

/// What the port gives back with each packet.
private enum Key {
    static let listener: UInt = 0
    static let connection: UInt = 1
}

/// A connection, and the one operation that goes round on it.
///
/// There is never more than one packet of it under way, so the worker that has the packet has everything, and needs no lock.
public final class EchoConnection: Overlapped, @unchecked Sendable {
    /// The connection itself.
    public let socket: Socket
    /// Its buffer: this connection's alone, freed with it. And it lives as long as an operation is pending on it.
    public let memory: UnsafeMutableRawBufferPointer

    /// With a copy of the bytes that have come already, however many they are.
    public init(_ socket: Socket, received: UnsafeRawBufferPointer = .init(start: nil, count: 0)) {
        self.socket = socket
        memory = .allocate(byteCount: max(EchoServer.bufferSize, received.count), alignment: 64)
        memory.copyMemory(from: received)
    }

    deinit { memory.deallocate() }
}

/// An accept, with the socket that it will fill and room for two addresses.
final class Acceptance: Overlapped, @unchecked Sendable {
    var socket = Socket()
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * Address.capacity, alignment: 16)

    deinit { memory.deallocate() }
}

extension Socket {
    fileprivate func prepost(_ acceptance: Acceptance) throws(SystemError) {
        acceptance.socket = Socket()
        try accept(acceptance, acceptance.socket, into: acceptance.memory, receiveLength: 0)
    }
}

/// The connections of a server, and what happens to them.
private final class Clients: @unchecked Sendable {
    let listener: Socket
    private let port: CompletionPort
    private let maximum: Int
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var open: [ObjectIdentifier: EchoConnection] = [:]
    private var count = EchoServer.Counters()
    private var isStopping = false
    private var failed: [Acceptance] = []
    private var retrier: Kernel.Thread?

    init(_ listener: Socket, _ port: CompletionPort, _ maximum: Int) {
        self.listener = listener
        self.port = port
        self.maximum = maximum
    }

    var counters: EchoServer.Counters { monitor.locked { count } }

    // MARK: Packets

    func accepted(_ acceptance: Acceptance, _ error: SystemError?) {
        if let error { return acceptFailed(acceptance, error) }
        let connection = EchoConnection(acceptance.socket)
        let isWelcome = monitor.locked {
            guard !isStopping, open.count < maximum else {
                count.refused += 1
                return false
            }
            open[ObjectIdentifier(connection)] = connection
            count.connections += 1
            count.accepted += 1
            return true
        }
        prepost(acceptance)
        guard isWelcome else { return connection.socket.close() }
        do throws(SystemError) {
            try port.associate(connection.socket, key: Key.connection)
            try connection.socket.receive(connection, into: connection.memory)
        } catch {
            close(connection, failed: true)
        }
    }

    func advance(_ connection: EchoConnection, _ bytes: Int, _ error: SystemError?) {
        guard error == nil else { return close(connection, failed: true) }
        do throws(SystemError) {
            if connection.kind == .receive {
                guard bytes > 0 else { return close(connection, failed: false) }
                try connection.socket.send(connection, from: .init(rebasing: connection.memory[..<bytes]))
            } else {
                try connection.socket.receive(connection, into: connection.memory)
            }
        } catch {
            close(connection, failed: true)
        }
    }

    private func close(_ connection: EchoConnection, failed: Bool) {
        connection.socket.close()
        monitor.locked {
            guard open.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
            count.connections -= 1
            if failed && !isStopping { count.failed += 1 }
            if open.isEmpty { monitor.broadcast() }
        }
    }

    private func prepost(_ acceptance: Acceptance) {
        do throws(SystemError) {
            try listener.prepost(acceptance)
        } catch {
            acceptFailed(acceptance, error)
        }
    }

    /// An accept that has failed, such as for want of a descriptor, is posted again after a pause. Not by a worker, whose
    /// clients would have to wait.
    private func acceptFailed(_ acceptance: Acceptance, _ error: SystemError) {
        monitor.locked {
            guard !isStopping, error.code != ECANCELED else { return }
            count.failedAccepts += 1
            failed.append(acceptance)
            if retrier == nil { retrier = try? Kernel.Thread("accepts again") { [self] in retry() } }
            monitor.broadcast()
        }
    }

    private func retry() {
        while true {
            let again = monitor.locked {
                while !isStopping, failed.isEmpty { monitor.wait() }
                let next = Deadline.after(Clients.backOff)
                while !isStopping, monitor.wait(until: next) {}
                defer { failed = [] }
                return isStopping ? [] : failed
            }
            if again.isEmpty { return }
            for acceptance in again { prepost(acceptance) }
        }
    }

    /// Between two tries.
    private static let backOff = Duration.milliseconds(20)

    // MARK: The end

    /// Closes everything and waits for the packets of what was pending.
    func closeAll() {
        let connections = monitor.locked {
            isStopping = true
            monitor.broadcast()
            return Array(open.values)
        }
        let retrier = monitor.locked { self.retrier }
        retrier?.join()
        listener.close()
        for connection in connections { connection.socket.close() }
        let deadline = Deadline.after(.seconds(10))
        monitor.locked {
            while !open.isEmpty, monitor.wait(until: deadline) {}
        }
    }
}
