import CompletionPorts
import Kernel
import PrepostedAccepts

/// The stage's server: an echo server whose contexts live exactly long enough, behind chapter 03's pool of accepts.
///
/// Clients may leave whenever they like, by any way, while pushes are being sent to them and the server itself closes
/// some: in the end every counter is where it began.
public final class ContextServer: Sendable {
    /// Where it listens.
    public let address: Address
    /// Its connections.
    public let table: ConnectionTable
    private let port: CompletionPort
    private let workers: WorkerGroup
    private let pool: AcceptPool
    private let accepting: Guarded<AcceptPool?>
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
        /// The pool of accepts.
        public var accepts: AcceptPool.Options
        /// How long a client may be silent; nil for as long as it likes.
        public var idleLimit: Duration?
        /// Whether and how the system asks silent peers.
        public var keepAlive: KeepAlive? = KeepAlive()
        /// The port's own choices.
        public var port = CompletionPort.Options()

        /// The defaults.
        public init() {
            accepts = AcceptPool.Options()
            // A client need not say anything first.
            accepts.receiveLength = 0
            // Its handlers post and return.
            port.submission = .afterBatch
        }
    }

    /// Starts to listen and to serve.
    ///
    /// - Parameter closed: Told of every connection's end, once, by whichever thread caused it.
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible options, EMFILE.
    public init(
        on address: Address = .loopback(), options: Options = Options(),
        closed: @escaping @Sendable (ConnectionID, CloseReason) -> Void = { _, _ in }
    ) throws(SystemError) {
        guard options.accepts.receiveLength == 0 else {
            throw SystemError.invalid("take a client's first bytes with its accept: here receives take them")
        }
        let listener = try Socket.listener(on: address)
        self.address = try listener.localAddress
        let port = try CompletionPort(concurrency: options.concurrency, options: options.port)
        self.port = port
        // A connection's end frees a descriptor, which accepting may have waited for.
        let accepting = Guarded<AcceptPool?>(nil)
        let table = ConnectionTable(
            port: port, maximumConnections: options.maximumConnections,
            maximumFreeContexts: options.maximumFreeContexts
        ) { id, reason in
            closed(id, reason)
            accepting.locked { $0 }?.descriptorClosed()
        }
        self.table = table
        // What is set here once, every accepted socket inherits.
        try listener.setNoDelay()
        try options.keepAlive?.apply(to: listener)
        try port.associate(listener, key: 0)
        let pool = try AcceptPool(on: listener, options: options.accepts) { arrival in
            // A client that is gone already has been noticed by its first receive.
            _ = try? table.admit(arrival.client.socket)
        }
        self.pool = pool
        self.accepting = accepting
        let (idle, unanswered) = (options.idleLimit, options.keepAlive?.unanswered)
        // What has a limit is found after it at the earliest, and two rounds later at the latest.
        clock = try [idle, unanswered].compactMap(\.self).min().map { limit throws(SystemError) in
            let peers = Guarded(unanswered.map(UnansweredPeers.init))
            return try PeriodicTask("limits", every: limit / 4) { now in
                if let idle { table.tick(now: now, idleLimit: idle) }
                peers.locked { if $0 != nil { table.tick(now: now, &$0!) } }
            }
        }
        workers = try WorkerGroup(options.workers, on: port) { packet, error in
            if !table.handle(packet, error) { pool.handle(packet, error) }
        }
        do throws(SystemError) {
            try pool.start()
        } catch {
            workers.stop()
            throw error
        }
        accepting.locked { $0 = pool }
    }

    /// What its pool of accepts has done so far.
    public var accepts: AcceptPool.Counters { pool.counters }

    /// The interface that carries its operations out.
    public var driverKind: DriverKind { port.driverKind }

    /// Closes every connection, waits until every context is released, and ends every thread.
    ///
    /// - Returns: false when a context was not released in time: then something is wrong, and the counters say what.
    @discardableResult
    public func stop() -> Bool {
        pool.stop()
        clock?.stop()
        let isClean = table.close()
        workers.stop()
        accepting.locked { $0 = nil }
        return isClean
    }
}
