import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import Reordering
import Synchronization
import WorkerPools

/// One connection of an endpoint, whatever its frames: its name, its state, and what may be done with it. From any thread,
/// except where it says otherwise.
///
/// Outside of a callback hold its `id`, and ask the endpoint for the session when it is needed. Counterpart in the article:
/// `ClientContext`.
public class Session: @unchecked Sendable {
    /// The endpoint's, for this time of running.
    let run: Run
    /// The server that a client keeps in touch with by this session; nil for one that has come in.
    public let link: Link?
    let files: Guarded<FileTransfer?> = Guarded(nil)
    let messagesIn = Atomic<Int>(0), messagesOut = Atomic<Int>(0)
    let isWelcome = Atomic<Bool>(false)
    /// The longest message that can be acknowledged; nil where none can.
    let longestNumbered: Int?
    /// Numbered messages are sent under it, so that they stay in order. Taken before the other one.
    private let inOrder = Lock()
    let lock = Lock()

    // MARK: Guarded by the lock. That of the connection may be taken inside of it.

    /// Nil before it stands, and when it is over.
    var stream: StreamConnection?
    private var name: (id: ConnectionID, remote: Address?, local: Address?)?
    private var own: (any Sendable)?
    /// Why this side has ended it; the first reason counts.
    var ending: EndReason?
    private var isPaused = false
    /// Jobs that found no room; their client is not read from until they have some.
    var waiting = CircularQueue<(command: String, data: [UInt8])>(capacity: 1)
    var outgoing: [Int: (token: Int?, bytes: Int)] = [:]
    var lastSend = 0
    /// Numbered messages that are to be sent, in their order.
    private var line = CircularQueue<Delivery.Message>(capacity: 1)
    private var ownDelivery: Delivery?
    var file: TransferProgress?

    init(_ run: Run, _ link: Link?, longestNumbered: Int?) {
        (self.run, self.link, self.longestNumbered) = (run, link, longestNumbered)
    }

    deinit {
        guard let name else { return }
        run.registry.released()
        run.handler.released(name.id)
    }

    /// Its name for the whole life of the program.
    public var id: ConnectionID { lock.locked { name!.id } }
    /// The address of the other end, and of this one: also when it is over.
    public var address: Address? { lock.locked { name?.remote } }
    /// See `address`.
    public var localAddress: Address? { lock.locked { name?.local } }

    /// The connection itself, for options. For tests.
    package var socket: Socket? { lock.locked { stream?.socket } }

    /// What the program keeps with the session.
    public var context: (any Sendable)? {
        get { lock.locked { own } }
        set { lock.locked { own = newValue } }
    }

    func begin(_ stream: StreamConnection) {
        lock.locked {
            self.stream = stream
            name = (stream.id, stream.remoteAddress?.unmapped, stream.localAddress)
        }
    }

    // MARK: What the frames decide

    /// Answers: in the handler's calls about this session only. Answers leave together with the others to what came with them, and
    /// a client that does not take them is not read from. So there is room for answers that are about as long as what they
    /// answer; one that is longer than all that may be under way ends the session, out of resources: send it in steps, as
    /// `sent` tells that the last has left.
    public func reply(_ message: RawSpan) throws(FrameError) { throw FrameError(.refused, at: 0) }
    func post(_ message: RawSpan, _ token: Int) throws(SystemError) {}
    func post(numbered message: Delivery.Message, _ token: Int) throws(SystemError) {}
    /// A message as it is on the wire.
    func frame(_ message: RawSpan) throws(FrameError) -> [UInt8] { [] }
    /// Sends what was answered so far. In the handler's calls only.
    func flush() {}
    /// Says that this side sends no more when all is sent that was accepted. In the handler's calls about this session; from
    /// elsewhere `disconnect`.
    public func finish() {}

    // MARK: Sending

    /// Answers with a text.
    public func reply(_ text: String) throws(FrameError) {
        let bytes = Array(text.utf8)
        try reply(bytes.span.bytes)
    }

    /// Sends a message by itself, behind what was sent before.
    ///
    /// - Parameter token: 0 or more; the handler's `sent` is told.
    /// - Throws: ENOBUFS when too much is under way, ENOTCONN before it stands and when it is over, EMSGSIZE, ESHUTDOWN.
    public func send(_ message: RawSpan, token: Int? = nil) throws(SystemError) {
        let number = try announce(token, message.byteCount)
        do throws(SystemError) { try post(message, number) } catch { throw withdraw(number, error) }
        messagesOut.add(1, ordering: .relaxed)
        lookAtSends()
    }

    /// The same for a text.
    public func send(_ text: String, token: Int? = nil) throws(SystemError) {
        let bytes = Array(text.utf8)
        try send(bytes.span.bytes, token: token)
    }

    /// Sends a message and keeps it until the program at the other end has said that it has it: then the handler's
    /// `acknowledged` is told. What has no such answer at the end is in `undelivered`; a client sends it again. (I11.7)
    ///
    /// - Throws: as `send`; EOPNOTSUPP where the endpoint does not acknowledge; ENOBUFS when 1,024 are without an answer.
    public func sendAcknowledged(_ message: RawSpan, token: Int) throws(SystemError) {
        let delivery = delivery
        // Kept and put into the line in one step, so that the line is in order.
        try lock.locked { () throws(SystemError) in
            guard stream != nil else { throw SystemError(ENOTCONN, attempted: "send a message") }
            line.append(try delivery.keep(message, token))
        }
        sendLine()
    }

    /// Sends what is kept already; what a former connection has not brought there, too.
    func send(numbered messages: [Delivery.Message]) {
        lock.locked { for message in messages { line.append(message) } }
        sendLine()
    }

    /// Sends numbered messages as far as there is room; a send that is over goes on with it.
    private func sendLine() {
        inOrder.locked {
            while let message = lock.locked({ line.oldest }), send(message) {
                // Only the end takes others away meanwhile, and then all of them.
                lock.locked { _ = line.popFirst() }
            }
        }
    }

    /// Without the lock. False when there is no room. What cannot be sent since the connection is over stays undelivered.
    private func send(_ message: Delivery.Message) -> Bool {
        guard let number = try? announce(nil, message.bytes.count) else { return false }
        do throws(SystemError) { try post(numbered: message, number) } catch {
            return withdraw(number, error).code != ENOBUFS
        }
        messagesOut.add(1, ordering: .relaxed)
        lookAtSends()
        return true
    }

    /// A client's is the link's, so that it outlives the session.
    var delivery: Delivery {
        if let link { return link.delivery }
        return lock.locked {
            let delivery = ownDelivery ?? Delivery(longest: longestNumbered)
            ownDelivery = delivery
            return delivery
        }
    }

    /// The tokens of messages that nobody has said to have: for `disconnected`.
    public var undelivered: [Int] {
        let known = link?.delivery ?? lock.locked { ownDelivery }
        return known?.undelivered.map(\.token) ?? []
    }

    // MARK: Flow

    /// Under its number a send comes back.
    private func announce(_ token: Int?, _ bytes: Int) throws(SystemError) -> Int {
        let stream = lock.locked { self.stream }
        guard let stream else { throw SystemError(ENOTCONN, attempted: "send a message") }
        if run.options.whenFull == .refuses, stream.sendsUnderWay >= run.options.maximumPendingSends {
            throw SystemError(
                ENOBUFS, attempted: "have more than \(run.options.maximumPendingSends) sends under way")
        }
        return lock.locked {
            lastSend += 1
            outgoing[lastSend] = (token, bytes)
            return lastSend
        }
    }

    private func withdraw(_ number: Int, _ error: SystemError) -> SystemError {
        lock.locked { outgoing[number] = nil }
        return error
    }

    /// A send has been handed to the system; what the program wants to hear of it.
    func sendReturned(_ number: Int) -> (token: Int?, bytes: Int)? {
        let send = lock.locked { outgoing.removeValue(forKey: number) }
        lookAtSends()
        proceedWithJobs()
        if lock.locked({ !line.isEmpty }) { sendLine() }
        link?.sendKept()
        return send
    }

    /// Too much is under way: nothing more is read until half of it has been sent. (I11.4) Both decisions are made under the lock,
    /// so the last one is made with the last number.
    func lookAtSends() {
        lock.lock()
        defer { lock.unlock() }
        guard let stream else { return }
        let (underWay, most) = (stream.sendsUnderWay, run.options.maximumPendingSends)
        run.note(underWay: underWay)
        if !isPaused, underWay >= most, run.options.whenFull == .pausesReading {
            isPaused = true
            stream.pauseReading(.sends)
            run.gate.count { ($0.paused, $0.pauses) = ($0.paused + 1, $0.pauses + 1) }
        } else if isPaused, underWay <= most / 2 {
            isPaused = false
            stream.resumeReading(.sends)
            run.gate.count { $0.paused -= 1 }
        }
    }

    /// Sends that are not over.
    var sendsUnderWay: Int { lock.locked { stream?.sendsUnderWay ?? 0 } }

    /// Whether this side does not read, since too much is to be sent or to be worked on.
    var isHeld: Bool { lock.locked { isPaused || !waiting.isEmpty } }

    // MARK: The end, and the figures

    /// The handshake is over, though no message has come.
    public func welcome() { isWelcome.store(true, ordering: .relaxed) }

    /// Ends the session. With `graceful` what was accepted is sent first, and what the handler is just answering, too.
    public func disconnect(_ way: StreamConnection.Disconnect = .graceful(within: .seconds(5))) {
        end(.kicked, way)
    }

    func end(_ why: EndReason, _ way: StreamConnection.Disconnect) {
        let stream = lock.locked {
            ending = ending ?? why
            return self.stream
        }
        stream?.disconnect(way)
    }

    /// Under no lock: it is over. Its last figures.
    func over() {
        lock.locked {
            if isPaused { run.gate.count { $0.paused -= 1 } }
            (stream, isPaused) = (nil, false)
            waiting.removeAll()
            line.removeAll()
            outgoing = [:]
        }
        files.locked { $0 = nil }
    }

    /// What has gone through it.
    public var statistics: SessionStatistics {
        let (stream, name, ending, isPaused, file) = lock.locked {
            (self.stream, self.name, self.ending, self.isPaused, self.file)
        }
        let traffic = stream?.traffic
        return SessionStatistics(
            id: name?.id, address: name?.remote, since: traffic?.since ?? 0,
            heard: traffic?.heard ?? 0,
            messagesIn: messagesIn.load(ordering: .relaxed),
            messagesOut: messagesOut.load(ordering: .relaxed),
            bytesIn: traffic?.bytesReceived ?? 0, bytesOut: traffic?.bytesSent ?? 0,
            pendingSends: traffic?.pendingSends ?? 0,
            isPaused: isPaused, file: file, ending: ending)
    }
}

extension PauseReasons {
    /// Jobs of the client wait for a place.
    static let jobs = PauseReasons(rawValue: 64)
}
