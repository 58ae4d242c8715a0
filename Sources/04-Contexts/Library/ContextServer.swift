import CompletionPorts
import Glibc
import Kernel

/// The stage's server: the echo server of chapter 02, with contexts that live exactly long enough.
///
/// Clients may leave whenever they like, by any way, while notices are being sent to them and the server itself closes
/// some: in the end every counter is where it began.
public final class ContextServer: Sendable {
    /// Where it listens.
    public let address: Address
    /// Its connections.
    public let table: ConnectionTable
    private let port: CompletionPort
    private let workers: WorkerGroup
    private let acceptor: Acceptor
    private let clock: PeriodicTask?

    /// The server's limits and choices.
    public struct Options: Sendable {
        /// Threads that handle packets.
        public var workers = 2
        /// How many of them may run at a time; 0 means as many as there are processors.
        public var concurrency = 0
        /// Connections at a time. One more is closed at once, and counted.
        public var maximumConnections = 12_000
        /// Contexts that are kept for reuse.
        public var maximumFreeContexts = 1_024
        /// Accepts that wait for clients.
        public var pendingAccepts = 8
        /// How long a client may be silent; nil for as long as it likes.
        public var idleLimit: Duration?
        /// Whether and how the system asks silent peers.
        public var keepAlive: KeepAlive? = KeepAlive()
        /// The port's own choices.
        public var port = CompletionPort.Options()

        /// The defaults.
        public init() {}
    }

    /// Starts to listen and to serve.
    ///
    /// - Parameter closed: Told of every connection's end, once, by whichever thread caused it.
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible options, EMFILE.
    public init(
        on address: Address = .loopback(), options: Options = Options(),
        closed: @escaping @Sendable (ConnectionID, CloseReason) -> Void = { _, _ in }
    ) throws(SystemError) {
        let listener = try Socket.listener(on: address)
        self.address = try listener.localAddress
        let port = try CompletionPort(concurrency: options.concurrency, options: options.port)
        self.port = port
        let table = ConnectionTable(
            port: port, maximumConnections: options.maximumConnections,
            maximumFreeContexts: options.maximumFreeContexts, closed: closed)
        self.table = table
        let acceptor = Acceptor(
            listener: listener, port: port, table: table, keepAlive: options.keepAlive)
        self.acceptor = acceptor
        try port.associate(listener, key: 0)
        workers = try WorkerGroup(options.workers, on: port) { packet, error in
            if let accept = packet.operation as? Acceptance {
                acceptor.accepted(accept, error)
            } else {
                table.handle(packet, error)
            }
        }
        // A silent client is found after the limit at the earliest, and a quarter of it later on a machine that is not
        // slow.
        clock = try options.idleLimit.map { limit throws(SystemError) in
            try PeriodicTask("idle sweep", every: limit / 4) { now in table.tick(now: now, idleLimit: limit) }
        }
        for _ in 0..<options.pendingAccepts { try acceptor.post(Acceptance()) }
    }

    /// The interface that carries its operations out.
    public var driverKind: DriverKind { port.driverKind }

    /// Closes every connection, waits until every context is released, and ends every thread.
    ///
    /// - Returns: false when a context was not released in time: then something is wrong, and the counters say what.
    @discardableResult
    public func stop() -> Bool {
        acceptor.listener.close()
        clock?.stop()
        let isClean = table.close()
        workers.stop()
        return isClean
    }
}

/// An accept, with the socket that it will fill and room for two addresses.
private final class Acceptance: Overlapped, @unchecked Sendable {
    var socket = Socket()
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * Address.capacity, alignment: 16)

    deinit { memory.deallocate() }
}

/// Keeps accepts pending. (Chapter 03 does this properly; here a failed accept is posted again after a pause.)
private struct Acceptor: Sendable {
    let listener: Socket
    let port: CompletionPort
    let table: ConnectionTable
    let keepAlive: KeepAlive?
    /// Microseconds after a failed accept, such as for want of a descriptor.
    private static let backOff: UInt32 = 20_000

    func post(_ acceptance: Acceptance) throws(SystemError) {
        acceptance.socket = Socket()
        try listener.accept(acceptance, acceptance.socket, into: acceptance.memory, receiveLength: 0)
    }

    func accepted(_ acceptance: Acceptance, _ error: SystemError?) {
        if let error {
            // The listener was closed: this one is over.
            if CloseReason(error) == .cancelled { return }
            port.blocking { _ = usleep(Acceptor.backOff) }
            try? post(acceptance)
            return
        }
        let socket = acceptance.socket
        try? post(acceptance)
        // A client that is gone already will be noticed by its first receive.
        try? socket.setNoDelay()
        try? keepAlive?.apply(to: socket)
        _ = try? table.admit(socket)
    }
}
