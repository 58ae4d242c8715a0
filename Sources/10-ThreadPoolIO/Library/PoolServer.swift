import Kernel
import PrepostedAccepts

/// The chapter's server: lines from everybody, and lines to everybody, without a thread that the program has made.
///
/// Accepts come from chapter 03's pool, bound to the thread pool; each client has a `PoolIO`. What a client has sent is
/// reported line by line, with its length. (I10.7) A client that has ended is disconnected, and the next one gets its
/// socket. It is to be stopped: a server that is only forgotten goes on.
public final class PoolServer: @unchecked Sendable {
    /// Where it listens.
    public let address: Address
    /// The threads.
    public let pool: ThreadPool
    let options: Options
    let report: @Sendable (Report) -> Void
    // Set once, before the first packet.
    private var accepts: AcceptPool!
    private let group = PoolGroup()
    private let lock = Lock()
    // Guarded by the lock.
    private var clients: [ObjectIdentifier: Client] = [:]
    /// Clients that have gone, by their sockets, which wait for the next ones: their `PoolIO` stays bound.
    private var vacant: [ObjectIdentifier: Client] = [:]
    private var count = Counters()
    private var isClosing = false

    /// The limits.
    public struct Options: Sendable {
        /// The threads.
        public var pool = ThreadPool.Options()
        /// The accepts: at least 2 and at most 5.
        public var accepts = AcceptPool.Options()
        /// The longest line, in bytes. A client that sends a longer one is told so, and disconnected.
        public var maximumLine = 2_043
        /// Connections at a time. One more is closed at once, and counted.
        public var maximumConnections = 1_000
        /// Sends that one client may leave pending before it is passed over.
        public var maximumPendingSends = 64
        /// How long a client may say nothing; nil means for ever.
        public var silenceLimit: Duration?
        /// How long a client that ends may take with what it still has to receive, and with its own end.
        public var leavingLimit = Duration.seconds(5)

        /// The defaults.
        public init() {
            accepts.initial = 2
            accepts.lowWater = 1
            accepts.maximum = 5
            accepts.receiveLength = 0
        }
    }

    /// What the server tells, from any thread of the pool, and of one client one thing at a time.
    public enum Report: Sendable {
        /// A client has come.
        case connected(Address)
        /// A line, without its end. What is in it is the client's affair: show it with care.
        case line([UInt8], from: Address)
        /// A line was longer than it may be.
        case tooLong(from: Address)
        /// A client has ended, or its connection has failed; ETIMEDOUT when it has been silent for too long.
        case disconnected(Address, SystemError?)
    }

    /// What has happened so far, and what is there now.
    public struct Counters: Sendable, Equatable {
        /// Clients now.
        public internal(set) var connections = 0
        /// Clients that were taken in.
        public internal(set) var accepted = 0
        /// Clients that were closed at once, since there were too many.
        public internal(set) var refused = 0
        /// Sockets that wait for the next client; the accepts bound their number.
        public internal(set) var kept = 0
        /// Sockets that were used for one more client.
        public internal(set) var reused = 0
        /// Lines received.
        public internal(set) var lines = 0
        /// Sends that a client was passed over with, since it does not read.
        public internal(set) var passedOver = 0
    }

    /// Starts to listen and to serve.
    ///
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible limits, EMFILE, EAGAIN.
    public init(
        on address: Address = .loopback(), options: Options = Options(),
        report: @escaping @Sendable (Report) -> Void = { _ in }
    ) throws(SystemError) {
        guard options.maximumLine > 0, options.maximumConnections > 0, options.maximumPendingSends > 0,
            options.leavingLimit > .zero, options.silenceLimit.map({ $0 > .zero }) ?? true
        else { throw SystemError.invalid("start a server without room or time for a client") }
        (self.options, self.report) = (options, report)
        let listener = try Socket.listener(on: address)
        self.address = try listener.localAddress
        pool = try ThreadPool(options.pool)
        let accepts = try AcceptPool(on: listener, options: options.accepts) { [weak self] arrival in
            self?.welcome(arrival)
        }
        self.accepts = accepts
        do throws(SystemError) {
            try pool.bind(listener) { packet, error in accepts.handle(packet, error) }
            try accepts.start()
        } catch {
            accepts.stop()
            pool.close()
            throw error
        }
    }

    /// What has happened so far, and what is there now.
    public var counters: Counters {
        lock.locked {
            var now = count
            (now.connections, now.kept) = (clients.count, vacant.count)
            return now
        }
    }

    /// Sends a line to all who are connected now. Returns to how many; those who do not read are passed over.
    @discardableResult
    public func sendToAll(_ line: [UInt8]) -> Int {
        let all = lock.locked { Array(clients.values) }
        let sent = all.count { $0.send(line) }
        lock.locked { count.passedOver += all.count - sent }
        return sent
    }

    /// Ends: no client comes in, every connection is closed, every callback has returned, every thread has ended. In
    /// this order: the sockets, the callbacks, the objects. (I10.5)
    ///
    /// - Throws: EDEADLK from one of its callbacks.
    public func stop() throws(SystemError) {
        try pool.requireOutside("stop a server")
        accepts.stop()
        let all = lock.locked {
            isClosing = true
            defer { vacant = [:] }
            return Array(clients.values) + Array(vacant.values)
        }
        for client in all { client.socket.close() }
        try group.close()
        try pool.closeAndWait()
    }

    // MARK: What clients do

    func add(lines: Int) { lock.locked { count.lines += lines } }

    /// A client has come. (The socket may have had another one before.)
    private func welcome(_ arrival: Arrival) {
        let socket = arrival.client.socket
        let name = ObjectIdentifier(socket)
        let (used, isWelcome) = lock.locked { () -> (Client?, Bool) in
            let used = vacant.removeValue(forKey: name)
            let isWelcome = !isClosing && clients.count < options.maximumConnections
            if isWelcome { count.accepted += 1 } else if !isClosing { count.refused += 1 }
            if isWelcome, used != nil { count.reused += 1 }
            return (used, isWelcome)
        }
        guard isWelcome else {
            used?.close()
            return socket.close()
        }
        do throws(SystemError) {
            let client: Client
            if let used { client = used } else { client = try Client(socket, group, self) }
            let isIn = lock.locked {
                if !isClosing { clients[name] = client }
                return !isClosing
            }
            guard isIn else { return client.close() }
            client.start(arrival.remote ?? .any())
        } catch {
            socket.close()
        }
    }

    /// A client has gone: if its socket is as new, the next one gets it.
    func left(_ client: Client, isReusable: Bool) {
        let name = ObjectIdentifier(client.socket)
        let isKept = lock.locked {
            clients[name] = nil
            guard isReusable, !isClosing else { return false }
            // Before it is handed over: the next client may come at once.
            vacant[name] = client
            return true
        }
        if isKept, accepts.reuse(client.socket) { return dropClosed() }
        _ = lock.locked { vacant.removeValue(forKey: name) }
        client.close()
        accepts.descriptorClosed()
    }

    /// Those whose sockets the accepts have closed: their connection had failed before it was accepted.
    private func dropClosed() {
        let closed = lock.locked {
            let closed = vacant.filter { $0.value.socket.isClosed }
            for name in closed.keys { vacant[name] = nil }
            return closed.values
        }
        for client in closed { client.close() }
    }
}
