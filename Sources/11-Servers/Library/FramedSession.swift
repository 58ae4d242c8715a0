import Contexts
import FileTransfer
import Framing
import Kernel
import Reordering
import Synchronization

/// What stands between a connection and the program: a session in frames of one kind. It is chapter 06's handler, and what it
/// hears it tells the program's.
final class FramedSession<Codec: FrameCodec>: Session, FrameHandler, @unchecked Sendable {
    private let codec: Codec
    private let clock: Guarded<SessionClock>
    private let due = Atomic<UInt64>(0)
    private let isFinishing = Atomic<Bool>(false)
    /// Set in `opened`, nil when it is over. Guarded by the lock.
    private var framed: FramedConnection<Codec>?
    /// The address whose place is given back at the end: noted when the client came. (I11.2)
    private let admitted: Address?

    init(_ run: Run, _ codec: Codec, link: Link? = nil, admitted: Address? = nil) {
        (self.codec, self.admitted) = (codec, admitted)
        clock = Guarded(SessionClock(monotonicNanoseconds()))
        super.init(run, link, longestNumbered: run.longestNumbered(codec))
    }

    // MARK: Whose message it is

    var messageTag: UInt8? { longestNumbered == nil ? nil : Tag.program }

    func opened(_ connection: FramedConnection<Codec>) {
        lock.locked { framed = connection }
        begin(connection.stream!)
        clock.locked { $0 = SessionClock(monotonicNanoseconds()) }
        run.begin(self, isOutward: link != nil)
        run.handler.made(self)
        link?.stands(self)
        run.handler.connected(self)
    }

    func received(_ message: RawSpan, on connection: FramedConnection<Codec>) {
        if !isWelcome.load(ordering: .relaxed) { welcome() }
        guard longestNumbered != nil else { return deliver(message) }
        switch message.byteCount > 0 ? message.unsafeLoad(as: UInt8.self) : .max {
        case Tag.program: deliver(message.extracting(droppingFirst: 1))
        case Tag.numbered: deliver(numbered: message, connection)
        case Tag.acknowledgement:
            if let number = try? message.integer(UInt64.self, at: 9, .bigEndian),
                let token = delivery.acknowledged(number)
            {
                run.acknowledged.add(1, ordering: .relaxed)
                run.handler.acknowledged(token, self)
            }
        default: failed(connection, FrameError(.outOfBounds(wanted: 1, available: 0), at: 0))
        }
    }

    private func deliver(_ message: RawSpan) {
        messagesIn.add(1, ordering: .relaxed)
        run.handler.received(message, self)
    }

    /// Hands it over, unless it has come before; then, in any case, says that it is here.
    private func deliver(numbered message: RawSpan, _ connection: FramedConnection<Codec>) {
        guard let sender = try? message.integer(UInt64.self, at: 1, .bigEndian),
            let number = try? message.integer(UInt64.self, at: 9, .bigEndian)
        else {
            return failed(
                connection,
                FrameError(.outOfBounds(wanted: Delivery.head, available: message.byteCount), at: 0))
        }
        if run.isNew(number, of: sender) { deliver(message.extracting(droppingFirst: Delivery.head)) }
        try? connection.reply(message.extracting(1..<Delivery.head), tagged: Tag.acknowledgement)
    }

    // MARK: What a session does in these frames

    private var connection: FramedConnection<Codec>? { lock.locked { framed } }

    override func reply(_ message: RawSpan) throws(FrameError) {
        // In the handler's calls, and they are the ones that change it: without the lock.
        try framed?.reply(message)
        messagesOut.add(1, ordering: .relaxed)
    }

    override func post(_ message: RawSpan, _ token: Int) throws(SystemError) {
        try connection?.send(message, token: token)
    }

    override func post(numbered message: Delivery.Message, _ token: Int) throws(SystemError) {
        try connection?.send(message.bytes.span.bytes, tagged: Tag.numbered, token: token)
    }

    override func frame(_ message: RawSpan) throws(FrameError) -> [UInt8] { try run.frame(message, codec) }

    override func flush() { connection?.flush() }

    override func finish() {
        isFinishing.store(true, ordering: .relaxed)
        connection?.finish()
    }

    // MARK: What it hears

    func failed(_ connection: FramedConnection<Codec>, _ error: FrameError) {
        if case .endedInside = error.fault {} else { lock.locked { ending = ending ?? .limit } }
        run.handler.failed(error, self)
    }

    func ended(_ connection: FramedConnection<Codec>) { run.handler.ended(self) }

    func sent(_ token: Int, on connection: FramedConnection<Codec>) {
        guard let send = sendReturned(token), let number = send.token else { return }
        run.handler.sent(number, send.bytes, self)
    }

    func closed(_ connection: FramedConnection<Codec>, _ reason: CloseReason) {
        let (stood, why) = lock.locked { (framed != nil, ending ?? .closed(reason)) }
        if stood { run.end(self, why) }
        // First the place, then the word: who hears it may connect again at once.
        run.gate.leave(admitted, stood ? why : nil)
        if stood { run.handler.disconnected(self, why) }
        over()
        lock.locked { framed = nil }
        link?.isOver(why, stood: stood)
    }

    // MARK: Time

    /// A round of the clock. Mostly nothing is due, and one number is read.
    func tick(_ now: UInt64, on connection: FramedConnection<Codec>) {
        guard now >= due.load(ordering: .relaxed), let stream = lock.locked({ self.stream }) else { return }
        due.store(now + UInt64(run.options.limits.round / .nanoseconds(1)), ordering: .relaxed)
        lookAtSends()
        let traffic = stream.traffic
        let view = SessionClock.View(
            isWelcome: isWelcome.load(ordering: .relaxed), heard: traffic.heard,
            frameBegan: connection.frameBegan,
            isSending: stream.sendsUnderWay > 0, isPaused: isHeld,
            isFinishing: isFinishing.load(ordering: .relaxed) || lock.locked { ending != nil },
            acknowledged: stream.socket.bytesAcknowledged ?? 0)
        guard let limit = clock.locked({ $0.judge(now, view, run.options.limits) }) else { return }
        lock.locked { ending = ending ?? .timedOut(limit) }
        if limit != .close, limit != .stall, run.handler.expired(limit, self) {
            stream.disconnect(.graceful(within: run.options.limits.close))
        } else {
            stream.close()
        }
    }
}

/// With files or acknowledgements, a byte in front says whose a message is: 0 the program's, 1 to 15 of a file, 16 the program's
/// and numbered, 17 the answer to such a one.
enum Tag {
    static let program: UInt8 = 0
    static let numbered: UInt8 = 16
    static let acknowledgement: UInt8 = 17
}
