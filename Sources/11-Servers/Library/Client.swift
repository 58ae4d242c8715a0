import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import ThreadPoolIO

/// What a client chooses.
public struct ClientOptions: Sendable {
    /// The servers that it keeps in touch with from its start on.
    public var servers: [Address] = []
    /// How, with each.
    public var link = LinkOptions()
    /// Everything else.
    public var endpoint = EndpointOptions()

    /// The defaults.
    public init() {
        // A server need not say anything.
        endpoint.limits.handshake = nil
    }
}

/// How a client keeps in touch with a server.
public struct LinkOptions: Sendable {
    /// The address to connect from; nil for the one that leads there.
    public var from: Address?
    /// How long an attempt may take.
    public var connectLimit = Duration.seconds(10)
    /// How it comes back; nil: not at all.
    public var reconnection: Reconnection? = Reconnection()
    /// What becomes of messages while there is no connection.
    public var whileApart = WhileApart.kept(64)

    /// The defaults.
    public init() {}
}

/// What becomes of messages while there is no connection.
public enum WhileApart: Sendable, Equatable {
    /// So many are kept, and sent as soon as there is one; one more is refused.
    case kept(Int)
    /// They are refused.
    case refused
}

/// An endpoint that connects from its start on, and comes back.
public final class Client: Endpoint, @unchecked Sendable {
    private let servers: [Address]
    private let choices: LinkOptions

    /// A client that is not started.
    public init(_ options: ClientOptions, handler: any EndpointHandler) {
        (servers, choices) = (options.servers, options.link)
        super.init(options.endpoint, handler: handler)
    }

    override func open() throws(EndpointError) {
        for server in servers { _ = try connect(to: server, choices) }
    }
}

extension Endpoint {
    /// Keeps in touch with a server. The first attempt is made at once; what becomes of it, the handler hears.
    @discardableResult
    public func connect(to address: Address, _ options: LinkOptions = LinkOptions()) throws(EndpointError)
        -> Link
    {
        let run = try running()
        let link = Link(run, address, codec, options)
        run.links.locked { $0.append(link) }
        link.connect()
        return link
    }

    /// The servers that it keeps in touch with.
    public var links: [Link] { current?.links.locked { $0 } ?? [] }
}

/// A server that an endpoint keeps in touch with: over one connection after the other. Any thread may use it.
public final class Link: @unchecked Sendable {
    /// The server's address.
    public let address: Address
    private let run: Run
    private let codec: LengthPrefixed
    private let options: LinkOptions
    /// Messages that wait to be acknowledged: they outlive the connection.
    let delivery: Delivery
    private let lock = Lock()

    // MARK: Guarded by the lock. That of the session may be taken inside of it.

    private var present: Session?
    /// An attempt is under way, or a connection stands.
    private var isBusy = false
    /// The program wants a connection.
    private var isWanted = false
    private var comesBack: Bool
    private var pauses: Pauses
    private lazy var timer = PoolTimer(run.timers) { [weak self] _ in self?.attempt() }
    private var kept = CircularQueue<(bytes: [UInt8], token: Int?)>(capacity: 1)

    init(_ run: Run, _ address: Address, _ codec: LengthPrefixed, _ options: LinkOptions) {
        (self.run, self.address, self.codec, self.options) = (run, address, codec, options)
        delivery = Delivery(longest: run.longestNumbered(codec))
        comesBack = options.reconnection != nil
        pauses = Pauses(options.reconnection ?? Reconnection())
    }

    /// The session, while a connection stands.
    public var session: Session? { lock.locked { present } }

    /// Whether a connection that is gone is made again. Any time.
    public var reconnects: Bool {
        get { lock.locked { comesBack } }
        set { lock.locked { comesBack = newValue } }
    }

    /// Sends a message; while there is no connection it is kept or refused, as the options say. What was kept goes first, as soon
    /// as there is room for it.
    ///
    /// - Throws: ENOTCONN; ENOBUFS when too many are kept or under way; EMSGSIZE.
    public func send(_ message: RawSpan, token: Int? = nil) throws(SystemError) {
        lock.lock()
        if let session = present, kept.isEmpty {
            lock.unlock()
            return try session.send(message, token: token)
        }
        defer { lock.unlock() }
        guard case .kept(let most) = options.whileApart else {
            throw SystemError(ENOTCONN, attempted: "send to \(address)")
        }
        guard kept.count < most else {
            throw SystemError(ENOBUFS, attempted: "keep more than \(most) messages for \(address)")
        }
        guard (try? run.frame(message, codec)) != nil else {
            throw SystemError(EMSGSIZE, attempted: "frame \(message.byteCount) bytes")
        }
        kept.append((message.withUnsafeBytes { Array($0) }, token))
    }

    /// Sends a message that is kept until the server's program has said that it has it, over however many connections.
    ///
    /// - Throws: as `Session.sendAcknowledged`, but not for want of a connection.
    public func sendAcknowledged(_ message: RawSpan, token: Int) throws(SystemError) {
        // Under the lock: a connection that comes takes along what is there, and what is said later goes behind.
        try lock.locked { () throws(SystemError) in
            let message = try delivery.keep(message, token)
            present?.send(numbered: [message])
        }
    }

    // MARK: Connecting

    /// Connects, unless it is connected or about to be.
    public func connect() {
        lock.locked {
            // A new wish is a new row of attempts.
            if !isWanted { pauses.begin() }
            isWanted = true
        }
        attempt()
    }

    /// Ends the connection, and makes none until `connect`.
    public func disconnect(_ way: StreamConnection.Disconnect = .graceful(within: .seconds(5))) {
        stop()?.disconnect(way)
    }

    /// Makes no more connections. The session that there is.
    @discardableResult
    func stop() -> Session? {
        lock.locked {
            isWanted = false
            timer.cancel()
            return present
        }
    }

    /// By the program, or by the timer: never on an I/O worker that waits. (I11.8)
    private func attempt() {
        let isOurs = lock.locked {
            guard isWanted, !isBusy, !run.isStopping.load(ordering: .relaxed) else { return false }
            isBusy = true
            return true
        }
        guard isOurs else { return }
        guard run.gate.enterOutward() else { return isOver(.closed(.outOfResources), stood: false) }
        let session = FramedSession(run, codec, link: self)
        do throws(SystemError) {
            try run.hub.connect(
                to: address, from: options.from, within: options.connectLimit,
                handler: run.framed(codec, run.handler(session)))
        } catch {
            // There never was a connection that could tell.
            session.over()
            run.gate.leave(nil, nil)
            isOver(.closed(CloseReason(error)), stood: false)
        }
    }

    /// A connection stands: what waited for it goes first, and once. If it is not wanted any more, it ends.
    func stands(_ session: Session) {
        let stays = lock.locked {
            guard isWanted else { return false }
            if pauses.attempt > 0 { run.gate.count { $0.reconnects += 1 } }
            pauses.begin()
            present = session
            session.send(numbered: delivery.undelivered)
            return true
        }
        if stays { sendKept() } else { session.disconnect() }
    }

    /// As far as there is room; a send that is over goes on with it.
    func sendKept() {
        lock.locked {
            while let session = present, let word = kept.oldest {
                // No room, or it is gone again: then it waits for the next.
                guard (try? session.send(word.bytes.span.bytes, token: word.token)) != nil else { return }
                _ = kept.popFirst()
            }
        }
    }

    /// A connection is over, or has never come about: the next attempt is left to a timer.
    func isOver(_ why: EndReason, stood: Bool) {
        if stood {
            lock.locked { present = nil }
            run.handler.connectionLost(self, why)
        }
        lock.lock()
        isBusy = false
        guard isWanted, !run.isStopping.load(ordering: .relaxed) else { return lock.unlock() }
        guard comesBack, let pause = pauses.next() else {
            isWanted = false
            lock.unlock()
            return run.handler.gaveUp(self)
        }
        let (attempt, timer) = (pauses.attempt, timer)
        lock.unlock()
        run.handler.reconnecting(self, attempt: attempt, after: pause)
        try? timer.set(after: pause)
    }
}
