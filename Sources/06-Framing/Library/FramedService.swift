import Contexts
import Kernel
import Reordering
import Synchronization

/// What many connections have read. Any thread may look.
public final class FrameLedger: Sendable {
    private let messageCount = Atomic<Int>(0)
    private let joinedCount = Atomic<Int>(0)
    private let malformedCount = Atomic<Int>(0)
    private let cutCount = Atomic<Int>(0)

    /// A ledger without entries.
    public init() {}

    /// Messages delivered.
    public var messages: Int { messageCount.load(ordering: .relaxed) }
    /// Those of them that came in several pieces.
    public var joined: Int { joinedCount.load(ordering: .relaxed) }
    /// Streams that were not what they should be.
    public var malformed: Int { malformedCount.load(ordering: .relaxed) }
    /// Streams that ended within a frame.
    public var cutShort: Int { cutCount.load(ordering: .relaxed) }

    func add(messages: Int, joined: Int) {
        messageCount.wrappingAdd(messages, ordering: .relaxed)
        if joined > 0 { joinedCount.wrappingAdd(joined, ordering: .relaxed) }
    }

    func add(_ error: FrameError) {
        if case .endedInside = error.fault {
            cutCount.wrappingAdd(1, ordering: .relaxed)
        } else {
            malformedCount.wrappingAdd(1, ordering: .relaxed)
        }
    }
}

/// Connections that speak in messages: chapter 05's, with a codec, and a clock for what has limits. It is a server as soon
/// as it listens and a client as soon as it connects.
public final class FramedService<Codec: FrameCodec>: Sendable {
    /// How the messages of its connections are framed.
    public let codec: Codec
    /// The connections beneath.
    public let hub: StreamHub
    /// What they have read.
    public let ledger = FrameLedger()
    private let patience: Duration
    private let clock: PeriodicTask

    /// Starts the workers and the clock.
    ///
    /// - Parameters:
    ///   - options: The hub's. Beside its `maximumPendingSends` a connection gets as many as the answers to all its pending
    ///     reads may need.
    ///   - patience: How long a client may take, after an error, to hear of it and to close. Then this side does, at the
    ///     next round of the clock. (I6.4)
    ///   - round: How often the clock comes by, and calls `tick` of all handlers.
    /// - Throws: EINVAL for impossible options, and for frames so long that they need too many chunks; EAGAIN when the
    ///   system allows no more threads.
    public init(
        _ codec: Codec, options: StreamHub.Options = StreamHub.Options(), patience: Duration = .seconds(10),
        round: Duration = .milliseconds(250)
    ) throws(SystemError) {
        guard patience > .zero else { throw SystemError.invalid("wait for no time at all after an error") }
        var options = options
        let capacity = max(1, options.chunkCapacity)
        let batch = max(FramedConnection<Codec>.standardBatch, codec.maximumFrameLength)
        // Answers as long as what they answer: so many batches, not all of them full, and so many chunks for each.
        // The answers leave in chunks: what is read at a time is to need no more than some of them.
        if options.maximumReadSize / 64 > capacity { options.maximumReadSize = 64 * capacity }
        let batches = 1 + 2 * (max(capacity, options.maximumReadSize) + codec.maximumFrameLength) / batch
        options.maximumPendingSends += options.pendingReads * batches * ((batch + capacity - 1) / capacity)
        let hub = try StreamHub(options)
        (self.codec, self.hub, self.patience) = (codec, hub, patience)
        do throws(SystemError) {
            clock = try PeriodicTask("framing clock", every: min(round, patience)) { now in hub.tick(now) }
        } catch {
            hub.stop()
            throw error
        }
    }

    /// Listens, and gives every client a handler for its messages.
    ///
    /// - Parameter handler: Makes the handler of a connection. Called by any worker.
    /// - Returns: The address, with the port that was free.
    /// - Throws: EADDRINUSE when the address is taken, EBADF after `stop`.
    @discardableResult
    public func listen(
        on address: Address = .loopback(), handler: @escaping @Sendable () -> any FrameHandler<Codec>
    ) throws(SystemError) -> Address {
        let (codec, ledger, patience) = (codec, ledger, patience)
        return try hub.listen(on: address) { _ in
            FramedConnection(codec, handler: handler(), ledger: ledger, patience: patience)
        }
    }

    /// Connects. What the handler hears is what a server's hears.
    ///
    /// - Throws: as `StreamHub.connect`.
    public func connect(to address: Address, handler: any FrameHandler<Codec>) throws(SystemError) {
        try hub.connect(to: address, handler: framed(handler))
    }

    /// Takes a connection over that was made elsewhere.
    ///
    /// - Throws: as `StreamHub.adopt`.
    public func adopt(_ socket: Socket, handler: any FrameHandler<Codec>) throws(SystemError) {
        try hub.adopt(socket, handler: framed(handler))
    }

    private func framed(_ handler: any FrameHandler<Codec>) -> FramedConnection<Codec> {
        FramedConnection(codec, handler: handler, ledger: ledger, patience: patience)
    }

    /// Closes every connection and ends workers and clock.
    ///
    /// - Returns: Whether everything is back.
    @discardableResult
    public func stop() -> Bool {
        clock.stop()
        return hub.stop()
    }
}

/// Gives every message back: this chapter's handler.
public final class FramedEcho<Codec: FrameCodec>: FrameHandler {
    private let tellsErrors: Bool

    /// An echo.
    ///
    /// - Parameter tellsErrors: Whether the other side is told, with a message, what was wrong with what it sent.
    public init(tellsErrors: Bool = false) { self.tellsErrors = tellsErrors }

    /// Answers with the message.
    public func received(_ message: RawSpan, on connection: FramedConnection<Codec>) {
        // What was read as a message can be written as one.
        try? connection.reply(message)
    }

    /// Says what is wrong, if it is to, and finishes.
    public func failed(_ connection: FramedConnection<Codec>, _ error: FrameError) {
        if tellsErrors { try? connection.reply("error: \(error)") }
        connection.finish()
    }
}
