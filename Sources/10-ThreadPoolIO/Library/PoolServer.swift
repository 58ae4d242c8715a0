import Kernel
import PrepostedAccepts

/// The chapter's server: lines from everybody, and lines to everybody, without a thread that the program has made.
///
/// Accepts come from chapter 03's pool, bound to the thread pool; each client has a `PoolIO`. What a client has sent is
/// reported line by line, with its length. (I10.7) A client that has ended is disconnected, and the next one gets its
/// socket.
public final class PoolServer: Sendable {
    /// Where it listens.
    public let address: Address
    /// The threads.
    public let pool: ThreadPool
    private let room: Room
    private let accepts: AcceptPool

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
        /// A client has ended, or its connection has failed.
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
        guard options.maximumLine > 0, options.maximumConnections > 0, options.maximumPendingSends > 0 else {
            throw SystemError.invalid("start a server without room for a client")
        }
        let listener = try Socket.listener(on: address)
        self.address = try listener.localAddress
        let pool = try ThreadPool(options.pool)
        let room = Room(pool, options, report)
        let accepts = try AcceptPool(on: listener, options: options.accepts) { room.welcome($0) }
        (self.pool, self.room, self.accepts) = (pool, room, accepts)
        room.accepts = accepts
        do throws(SystemError) {
            try pool.bind(listener) { packet, error in accepts.handle(packet, error) }
            try accepts.start()
        } catch {
            accepts.stop()
            pool.close()
            throw error
        }
    }

    /// What has happened so far.
    public var counters: Counters { room.counters }

    /// Sends a line to all who are connected now. Returns to how many; those who do not read are passed over.
    @discardableResult
    public func sendToAll(_ line: [UInt8]) -> Int { room.sendToAll(line) }

    /// Ends: no client comes in, every connection is closed, every callback has returned, every thread has ended.
    ///
    /// - Throws: EDEADLK from one of its callbacks.
    public func stop() throws(SystemError) {
        accepts.stop()
        try room.close()
        try pool.closeAndWait()
    }
}

/// All clients of the server.
final class Room: @unchecked Sendable {
    let options: PoolServer.Options
    let report: @Sendable (PoolServer.Report) -> Void
    private let pool: ThreadPool
    private let group = PoolGroup()
    /// Set before the first packet, and given back at the end: the two refer to each other.
    var accepts: AcceptPool?
    private let lock = Lock()
    // Guarded by the lock.
    private var clients: [ObjectIdentifier: Client] = [:]
    /// Clients that have gone, by their sockets, which wait for the next ones: their `PoolIO` stays bound.
    private var vacant: [ObjectIdentifier: Client] = [:]
    private var count = PoolServer.Counters()
    private var isClosing = false

    init(
        _ pool: ThreadPool, _ options: PoolServer.Options,
        _ report: @escaping @Sendable (PoolServer.Report) -> Void
    ) {
        (self.pool, self.options, self.report) = (pool, options, report)
    }

    var counters: PoolServer.Counters {
        lock.locked {
            var now = count
            now.connections = clients.count
            return now
        }
    }

    func add(lines: Int) { lock.locked { count.lines += lines } }

    /// A client has come. (The socket may have had another one before.)
    func welcome(_ arrival: Arrival) {
        let socket = arrival.client.socket
        let name = ObjectIdentifier(socket)
        let (used, isWelcome) = lock.locked { () -> (Client?, Bool) in
            let used = vacant.removeValue(forKey: name)
            let isWelcome = !isClosing && clients.count < options.maximumConnections
            if isWelcome { count.accepted += 1 } else if !isClosing { count.refused += 1 }
            if isWelcome, used != nil { count.reused += 1 }
            return (used, isWelcome)
        }
        guard isWelcome else { return socket.close() }
        do throws(SystemError) {
            let client: Client
            if let used { client = used } else { client = try Client(socket, pool, group, self) }
            let isIn = lock.locked {
                if !isClosing { clients[name] = client }
                return !isClosing
            }
            guard isIn else { return socket.close() }
            client.start(arrival.remote ?? .any())
        } catch {
            socket.close()
        }
    }

    /// A client has gone: if its socket is as new, the next one gets it.
    func left(_ client: Client, isReusable: Bool) {
        let name = ObjectIdentifier(client.socket)
        let isReused = lock.locked {
            clients[name] = nil
            if isReusable, !isClosing { vacant[name] = client }
            return isReusable && !isClosing
        }
        if isReused {
            accepts?.reuse(client.socket)
        } else {
            client.socket.close()
            accepts?.descriptorClosed()
        }
    }

    func sendToAll(_ line: [UInt8]) -> Int {
        let all = lock.locked { Array(clients.values) }
        let sent = all.count { $0.send(line) }
        lock.locked { count.passedOver += all.count - sent }
        return sent
    }

    /// The sockets, the callbacks, the objects: in this order.
    func close() throws(SystemError) {
        let all = lock.locked {
            isClosing = true
            defer { vacant = [:] }
            return Array(clients.values) + Array(vacant.values)
        }
        for client in all { client.socket.close() }
        try group.close()
        accepts = nil
    }
}
