import Contexts
import Glibc
import Kernel
import Reordering
import Synchronization

/// A connection that speaks in messages: a reader on the one side, and on the other a buffer that collects the answers to
/// all whole messages of one chunk, so that they leave with one send.
///
/// It is the handler of a stream, which calls it in order and never twice at once: that is why nothing here is locked.
/// (I6.5) What may be called from anywhere says so. Code that keeps this object beyond `closed` keeps the stream from being
/// released.
///
/// The chunk itself takes the answers back, where what they answer was. It is read into again when they have left: so a
/// client that does not read its answers is not read from, and what it costs has a bound. (I6.7)
public final class FramedConnection<Codec: FrameCodec>: StreamHandler, @unchecked Sendable {
    private let reader: FrameReader<Codec>
    private let tag: UInt8?
    /// Set once, before the handler hears of this object.
    private var connection: StreamConnection?
    /// This side has closed: from any thread.
    private let isClosed = Atomic<Bool>(false)
    private let isRefusing = Atomic<Bool>(false)
    /// Since when the stream has been in error, in nanoseconds; 0 when it is not.
    private let failedAt = Atomic<UInt64>(0)
    private let began = Atomic<UInt64>(0)
    private let counters: FrameLedger?
    private let patience: Duration?
    private var answers: SplitBuffer
    private var failure: FrameError?
    private var discarded = 0

    private let lock = Lock()
    // Guarded by the lock.
    /// Let go when the connection is over, so that it and this object may refer to each other. The stream's calls read
    /// it without the lock, since it changes in one of them.
    private var handler: (any FrameHandler<Codec>)?
    private var isFinishing = false
    private var finishWaits = false

    /// Answers are sent when a chunk's messages have been handled, or when they are as many bytes as this.
    public static var standardBatch: Int { 16_384 }
    /// After an error so many bytes are thrown away while the client has not closed; then this side does.
    public static var discardLimit: Int { 1 << 20 }

    /// Messages for a handler. To be given to a hub as the handler of one stream.
    ///
    /// - Parameters:
    ///   - ledger: Counts what is read here, together with other connections.
    ///   - patience: How long after an error this side closes, if the other one has not: at the first `tick` after that.
    ///     Nil: it stays open as long as its client likes.
    public init(
        _ codec: Codec, handler: any FrameHandler<Codec>, ledger: FrameLedger? = nil,
        patience: Duration? = nil
    ) {
        self.handler = handler
        self.counters = ledger
        self.patience = patience
        tag = handler.messageTag
        reader = FrameReader(codec)
        answers = SplitBuffer(limit: max(FramedConnection.standardBatch, codec.maximumFrameLength))
    }

    /// How the messages are framed.
    public var codec: Codec { reader.codec }

    /// The stream beneath: its name, its socket, files to transmit, tickets. Nil before `opened`.
    public var stream: StreamConnection? { connection }

    /// Since when a frame has been there whose rest has not come: nanoseconds on the monotonic clock, to a few milliseconds; 0
    /// when there is none. Any thread may ask.
    public var frameBegan: UInt64 { began.load(ordering: .relaxed) }

    /// What is wrong with what the other side has sent; nil when nothing is. In the handler's calls only.
    public var error: FrameError? { failure }

    /// The most memory that frames in several pieces have needed. In the handler's calls only.
    public var peakCapacity: Int { reader.peakCapacity }

    // MARK: Sending

    /// While this is true, `reply` and `send` refuse messages. For a handler around the program's own that wants the
    /// connection for itself for a while; any thread may change it.
    public var refusesMessages: Bool {
        get { isRefusing.load(ordering: .relaxed) }
        set { isRefusing.store(newValue, ordering: .relaxed) }
    }

    /// Answers. In the handler's calls only; from `received` it leaves together with the other answers to the chunk.
    ///
    /// - Throws: What is wrong with the message, such as its length; `refused` while messages are.
    public func reply(_ message: RawSpan) throws(FrameError) {
        if refusesMessages { throw FrameError(.refused, at: 0) }
        try reply(message, tagged: tag)
    }

    /// The same for a handler that has messages of its own beside the program's: with this byte in front.
    public func reply(_ message: RawSpan, tagged tag: UInt8?) throws(FrameError) {
        do throws(FrameError) {
            try append(tag, message, to: &answers)
        } catch {
            guard case .bufferFull = error.fault, !answers.isEmpty else { throw error }
            flush()
            try append(tag, message, to: &answers)
        }
    }

    @inline(__always)
    private func append(_ tag: UInt8?, _ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError) {
        guard let tag else { return try codec.append(message, to: &buffer) }
        try codec.append(tag: tag, message, to: &buffer)
    }

    /// Answers with a text.
    public func reply(_ text: String) throws(FrameError) {
        let bytes = Array(text.utf8)
        try reply(bytes.span.bytes)
    }

    /// Sends a message by itself. From any thread, from `opened` on. What was replied in the handler's present call goes
    /// out at its end, and so behind this, unless `flush` comes first.
    ///
    /// - Parameters:
    ///   - ticket: Its place among the sends, from the stream's `takeTicket`: so answers that several threads work out
    ///     leave in the order of what they answer. Nil for behind everything so far.
    ///   - token: If not nil, the handler is told when it has been handed to the system.
    /// - Throws: ENOBUFS when too much is pending, EMSGSIZE when the codec cannot frame the message, EBUSY while messages
    ///   are refused, EBADF after `close`, ESHUTDOWN after `finish`. A ticket stays good.
    public func send(_ message: RawSpan, ticket: SendTicket? = nil, token: Int? = nil) throws(SystemError) {
        if refusesMessages { throw SystemError(EBUSY, attempted: "send a message") }
        try send(message, tagged: tag, ticket: ticket, token: token)
    }

    /// The same for a handler around the program's own: with this byte in front, and whether messages are refused or not.
    public func send(
        _ message: RawSpan, tagged tag: UInt8?, ticket: SendTicket? = nil, token: Int? = nil
    ) throws(SystemError) {
        try framed(message, tag) { bytes, connection throws(SystemError) in
            try connection.send(bytes, ticket: ticket, token: token)
        }
    }

    /// Sends a message with this byte in front, and right behind it, as one operation, a part of a file: raw bytes that
    /// the other side has to let pass. For a handler around the program's own, as the last one.
    ///
    /// - Throws: as `send`, and what `StreamConnection.transmit` throws.
    public func transmit(
        _ file: File, offset: Int64, length: Int, behind message: RawSpan, tagged tag: UInt8?,
        token: Int? = nil
    ) throws(SystemError) {
        try framed(message, tag) { bytes, connection throws(SystemError) in
            try connection.transmit(file, offset: offset, length: length, head: Array(bytes), token: token)
        }
    }

    private func framed(
        _ message: RawSpan, _ tag: UInt8?,
        _ body: (UnsafeRawBufferPointer, StreamConnection) throws(SystemError) -> Void
    ) throws(SystemError) {
        guard let connection else { throw SystemError(ENOTCONN, attempted: "send a message") }
        var frame = SplitBuffer(limit: message.byteCount + 16)
        guard (try? append(tag, message, to: &frame)) != nil else {
            throw SystemError(EMSGSIZE, attempted: "frame \(message.byteCount) bytes")
        }
        try frame.withBytes { bytes in
            bytes.withUnsafeBytes { bytes in
                Result { () throws(SystemError) in try body(bytes, connection) }
            }
        }.get()
    }

    /// Sends the answers so far, at once. In the handler's calls only.
    public func flush() {
        guard !answers.isEmpty, let connection else { return }
        attempt(on: connection) { () throws(SystemError) in
            try answers.withBytes { bytes in
                bytes.withUnsafeBytes { bytes in
                    Result { () throws(SystemError) in try connection.send(bytes) }
                }
            }.get()
        }
        answers.removeAll()
    }

    /// Sends the answers in the chunk that they answer; if they are too long for it, before it. Either way it is read into
    /// again when they have left.
    private func answer(in chunk: Chunk, on connection: StreamConnection) {
        guard !answers.isEmpty else { return }
        let fits = answers.withBytes { bytes in bytes.withUnsafeBytes { chunk.refill($0) } }
        if fits { answers.removeAll() } else { flush() }
        // Code that keeps the chunk may still look at what it holds.
        guard fits || chunk.refill(UnsafeRawBufferPointer(start: nil, count: 0)) else { return }
        attempt(on: connection) { () throws(SystemError) in try connection.send(chunk) }
    }

    private func attempt(on connection: StreamConnection, _ body: () throws(SystemError) -> Void) {
        do throws(SystemError) {
            try body()
        } catch {
            // An answer that is not sent would be missed: the stream has no holes. It ends here, unless this side has said
            // already that it sends no more.
            if error.code != ESHUTDOWN { connection.close(CloseReason(error)) }
        }
    }

    // MARK: Receiving

    /// The next `count` bytes of the stream are no messages: they go to the handler's `passed`, as they come. In the
    /// handler's calls only.
    public func passThrough(_ count: Int) { reader.passThrough(count) }

    /// Sends what is to be sent, and then says that this side sends no more; closes when the other side has ended, too.
    public func finish() {
        flush()
        let isNow = lock.locked {
            isFinishing = true
            return !finishWaits
        }
        if isNow { connection?.finish() }
    }

    /// Lets `finish` wait, or lets it happen: a handler around the program's own may have something to say that is not
    /// ready yet. Any thread.
    public func delayFinish(_ waits: Bool) {
        let isNow = lock.locked {
            finishWaits = waits
            return isFinishing && !waits
        }
        if isNow { connection?.finish() }
    }

    /// Ends the connection at once. Nothing is delivered any more. From any thread.
    public func close(_ reason: CloseReason = .cancelled) {
        isClosed.store(true, ordering: .relaxed)
        connection?.close(reason)
    }

    // MARK: What the stream calls

    /// The connection stands.
    public func opened(_ connection: StreamConnection) {
        lock.locked { self.connection = connection }
        handler?.opened(self)
        flush()
    }

    /// The next chunk: all its messages, then all their answers with one send.
    public func received(_ chunk: Chunk, on connection: StreamConnection) {
        guard let handler else { return }
        guard failure == nil else { return discard(chunk, connection) }
        let before = reader.counters
        do throws(FrameError) {
            // The chunk is this call's until it returns.
            try reader.read(
                chunk.contents.bytes,
                raw: { handler.passed($0, of: chunk, on: self) },
                message: { message in
                    if isClosed.load(ordering: .relaxed) { return reader.stop() }
                    handler.received(message, on: self)
                })
        } catch {
            fail(handler, error)
        }
        let now = reader.counters
        counters?.add(messages: now.frames - before.frames, joined: now.joined - before.joined)
        note(hasNew: now.frames > before.frames, connection)
        if reader.rawBytesLeft > 0 { connection.expect(reader.rawBytesLeft) }
        answer(in: chunk, on: connection)
    }

    /// Whether a frame is half there after a chunk, and since when.
    private func note(hasNew: Bool, _ connection: StreamConnection) {
        let since = began.load(ordering: .relaxed)
        if reader.heldBytes == 0 {
            if since != 0 { began.store(0, ordering: .relaxed) }
        } else if since == 0 || hasNew {
            began.store(connection.traffic.heard, ordering: .relaxed)
        }
    }

    private func fail(_ handler: any FrameHandler<Codec>, _ error: FrameError) {
        failure = error
        counters?.add(error)
        failedAt.store(monotonicNanoseconds(), ordering: .relaxed)
        handler.failed(self, error)
    }

    private func discard(_ chunk: Chunk, _ connection: StreamConnection) {
        discarded += chunk.contents.count
        if discarded > FramedConnection.discardLimit { connection.close() }
    }

    /// The other side sends no more.
    public func ended(_ connection: StreamConnection) {
        guard let handler else { return }
        if failure == nil {
            do throws(FrameError) {
                try reader.endOfStream()
                handler.ended(self)
            } catch {
                fail(handler, error)
            }
        }
        flush()
        // After an error nothing is left to wait for.
        if failure != nil { connection.finish() }
    }

    /// A send has completed.
    public func sent(_ token: Int, on connection: StreamConnection) {
        handler?.sent(token, on: self)
        flush()
    }

    /// The connection is over: everything goes.
    public func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        let last = lock.locked {
            defer { handler = nil }
            return handler
        }
        last?.closed(self, reason)
    }

    /// Time has passed: a connection that has been in error for long enough is closed. (I6.4)
    public func tick(_ now: UInt64, on connection: StreamConnection) {
        let since = failedAt.load(ordering: .relaxed)
        if let patience, since > 0, now > since, .nanoseconds(Int64(now - since)) >= patience { close() }
        lock.locked { self.connection == nil ? nil : handler }?.tick(now, on: self)
    }
}
