import Contexts
import Framing
import Glibc
import Kernel
import Reordering

/// A connection that carries messages and files: in each direction one file at a time, and both directions at once.
///
/// One lock guards both halves. It is held while a step is decided and while what follows is posted, so what is decided
/// first is sent first. It is not held while files are opened, named or removed, nor while anybody is told. (I8.2)
/// Any thread may call it.
public final class TransferConnection: StreamHandler, @unchecked Sendable {
    let hub: TransferHub
    let lock = Lock()

    // MARK: What the lock guards

    private(set) var stream: StreamConnection?
    private(set) var isOver = false
    private var hasEnded = false
    private var lastID: UInt32 = 0
    private var words: [[UInt8]] = []
    private var wordsInFlight = 0
    // The sending half, in `SendingHalf.swift`.
    var outgoing: OutgoingFile?
    var waitingFiles: [FileRequest] = []
    var isOpening = false
    // The receiving half, in `ReceivingHalf.swift`.
    var incoming: IncomingFile?
    var questions: [Question] = []
    /// The first of them has been asked, under this number; until then an answer is waited for.
    var asked: (number: UInt32, deadline: UInt64)?
    /// How often everything has been called off: a file that is being made meanwhile is meant, too.
    private(set) var callOffs = 0

    // MARK: What belongs to the handler's calls, which come one at a time

    private let reader = FrameReader(TransferMessage.codec)
    /// Whose the raw bytes are that come now; nil when nobody wants them any more.
    var pieceOwner: IncomingFile?

    /// Pieces have the number of their file as a token.
    private static let wordsToken = -1
    private static let mostWordsInFlight = 16

    init(_ hub: TransferHub) { self.hub = hub }

    /// What is to be done when the lock is free again.
    typealias After = [() -> Void]

    /// Holds the lock, and does afterwards what is not to be done under it.
    func locked<Result>(_ body: (inout After) -> Result) -> Result {
        var after: After = []
        lock.lock()
        let result = body(&after)
        lock.unlock()
        for action in after { action() }
        return result
    }

    // MARK: Messages

    /// Sends a message that has nothing to do with files. While a file is under way to the other side, it waits or is
    /// refused, as the options say; it never gets between the bytes of a file. (I8.1)
    ///
    /// - Throws: `busy` when a file is under way and messages are refused, or too many wait; `tooLarge` beyond
    ///   `TransferMessage.maximumText`; `disconnected`.
    public func send(_ message: [UInt8]) throws(TransferError) {
        guard message.count <= TransferMessage.maximumText else { throw TransferError(.tooLarge, "message") }
        let failure: TransferFailure? = locked { after in
            if isOver { return .disconnected }
            let isFileUnderWay = outgoing != nil || !waitingFiles.isEmpty
            if isFileUnderWay, hub.options.wordsDuringFile == .refused { return .busy }
            if words.count >= hub.options.maximumWaitingWords { return .busy }
            words.append(message)
            if !isFileUnderWay { sendWords(&after) }
            return nil
        }
        if let failure { throw TransferError(failure, "message") }
    }

    /// Under the lock, when no file is under way: sends what waits, a few at a time. The rest follows when those have gone
    /// out: who does not read fills this side's queue, and nothing else.
    func sendWords(_ after: inout After) {
        while outgoing == nil, stream != nil, wordsInFlight < TransferConnection.mostWordsInFlight,
            !words.isEmpty
        {
            wordsInFlight += 1
            tell(
                TransferMessage(.words, text: words.removeFirst()), token: TransferConnection.wordsToken,
                &after)
        }
    }

    /// Under the lock: sends a message of the exchange. Too many of them mean a peer that does not read.
    func tell(_ message: TransferMessage, token: Int? = nil, _ after: inout After) {
        guard let stream, !isOver else { return }
        do {
            try stream.send(try message.frame(), token: token)
        } catch {
            after.append { stream.close(.outOfResources) }
        }
    }

    /// Under the lock: a number that no transfer of this side has. 0 is none.
    func nextID() -> UInt32 {
        lastID = lastID == .max ? 1 : lastID + 1
        return lastID
    }

    /// The other side has said something that cannot be. What came before it was in order; nothing behind it is.
    func fail(_ failure: TransferFailure) {
        let stream = locked { after in
            endAll(failure, &after)
            return self.stream
        }
        stream?.close(.reset)
    }

    // MARK: The stream

    /// For the stream.
    public func opened(_ connection: StreamConnection) {
        hub.add(self)
        locked { after in
            stream = connection
            askNext(&after)
            if waitingFiles.isEmpty { sendWords(&after) }
        }
        startNextFile()
    }

    /// For the stream: frames are read here, and the bytes of pieces passed on as they are.
    public func received(_ chunk: Chunk, on connection: StreamConnection) {
        do throws(FrameError) {
            try reader.read(
                chunk.contents.bytes,
                raw: { take(UnsafeRawBufferPointer(rebasing: chunk.contents[$0]), of: chunk) },
                message: { if let message = try? TransferMessage($0) { take(message) } else { giveUp() } })
        } catch {
            giveUp()
        }
    }

    private func giveUp() {
        reader.stop()
        fail(.nonsense)
    }

    private func take(_ message: TransferMessage) {
        let (id, now) = (message.id, monotonicNanoseconds())
        switch message.kind {
        case .words: hub.events.words(message.text, self)
        case .ask: answer(id, message.text)
        case .decline: locked { after in answered(id, with: message.reason, isFromPeer: true, &after) }
        case .announce: consider(message)
        case .agree: step(id) { $0.agreed(now: now) }
        case .refuse: step(id, isFromPeer: true) { $0.fail(message.reason, tells: false) }
        case .verified: step(id) { $0.verified() }
        case .piece:
            reader.passThrough(Int(message.count))
            pieceOwner = locked { _ in incoming?.id == id ? incoming : nil }
            step(receiving: id) { $0.state.piece(offset: message.value, count: UInt64(message.count)) }
        case .complete:
            step(receiving: id) { $0.state.completed(sumIsRight: $0.checksum.value == message.value) }
        case .abort: step(receiving: id, isFromPeer: true) { $0.state.fail(message.reason, tells: false) }
        }
    }

    /// For the stream: a piece or a message has been handed to the system.
    public func sent(_ token: Int, on connection: StreamConnection) {
        guard token == TransferConnection.wordsToken else { return pieceSent(UInt32(token)) }
        locked { after in
            wordsInFlight -= 1
            sendWords(&after)
            finishIfEnded()
        }
    }

    /// For the stream: the other side says no more. A file that has come whole is kept first, and it hears of that.
    public func ended(_ connection: StreamConnection) {
        locked { _ in
            hasEnded = true
            finishIfEnded()
        }
    }

    /// Under the lock, and again when nothing is arriving any more, and when messages have gone out. Those that wait for
    /// others are waited for; those that wait for a file are not, since nobody can say any more that it has come.
    func finishIfEnded() {
        let isKeeping = incoming.map { $0.state.phase != .receiving } ?? false
        if hasEnded, !isKeeping, words.isEmpty || outgoing != nil { stream?.finish() }
    }

    /// For the stream.
    public func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        locked { after in
            endAll(.disconnected, &after)
            stream = nil
        }
        hub.remove(self)
    }

    // MARK: The end

    /// Calls off everything that is under way or waits, in both directions. The connection goes on; each observer hears
    /// `aborted`. A piece that is on its way is sent to its end, and thrown away over there.
    public func callOff() {
        locked { after in
            callOffs += 1
            endTransfers(.aborted, tells: true, &after)
        }
    }

    /// Ends the connection, and with it everything that is under way.
    public func close() { locked { _ in stream }?.close() }

    /// Under the lock: the connection is over, or is going to be.
    private func endAll(_ failure: TransferFailure, _ after: inout After) {
        guard !isOver else { return }
        isOver = true
        words = []
        // A file that became shorter in the middle of a piece ends the connection.
        if let outgoing, !outgoing.isUnchanged {
            act(outgoing.state.fail(.changed, tells: false), outgoing, &after)
        }
        endTransfers(failure, tells: false, &after)
        if let outgoing { letGo(outgoing, &after) }
    }

    /// Under the lock.
    private func endTransfers(_ failure: TransferFailure, tells: Bool, _ after: inout After) {
        for file in waitingFiles {
            if tells, file.question != 0 { tell(TransferMessage(.decline, file.question, failure), &after) }
            finish(file.observer, TransferError(failure, file.name.description), &after)
        }
        for question in questions {
            finish(question.observer, TransferError(failure, question.name.description), &after)
        }
        (waitingFiles, questions, asked) = ([], [], nil)
        if let incoming { act(incoming.state.fail(failure, tells: tells), incoming, &after) }
        if let outgoing { act(outgoing.state.fail(failure, tells: tells), outgoing, &after) }
    }

    /// Under the lock: somebody is told that it came to nothing.
    func finish(_ observer: TransferObserver, _ error: TransferError, _ after: inout After) {
        after.append { observer.finished(.failure(error)) }
    }

    /// Time has passed. (I8.3)
    func tick(_ now: UInt64) {
        locked { after in
            if let outgoing {
                outgoing.state.acknowledged(stream?.socket.bytesAcknowledged, now: now)
                act(outgoing.state.tick(now: now), outgoing, &after)
                // Nothing can be said any more to somebody who does not take the piece that he is being sent.
                if outgoing.state.isStuck(now: now) { after.append { [self] in close() } }
            }
            if let incoming { act(incoming.state.tick(now: now), incoming, &after) }
            // The other side sends one file at a time: while one is arriving, it cannot answer.
            if incoming != nil { asked?.deadline = now + hub.options.limits.answer }
            if let asked, now >= asked.deadline { answered(asked.number, with: .noAnswer, &after) }
        }
    }
}
