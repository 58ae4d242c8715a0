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

/// A server that gives every client a handler for its messages.
public final class FramedServer<Codec: FrameCodec>: Sendable {
    /// Where it listens.
    public let address: Address
    /// The connections beneath.
    public let hub: StreamHub
    /// What they have read.
    public let ledger: FrameLedger
    private let sweep: FailureSweep

    /// Starts to listen and to serve.
    ///
    /// - Parameters:
    ///   - options: The hub's. A connection gets at least as many pending sends as the answers to all its pending reads
    ///     may need.
    ///   - patience: How long a client may take, after an error, to hear of it and to close: see ``FailureSweep``.
    ///   - handler: Makes the handler of a connection. Called by any worker.
    /// - Throws: EADDRINUSE when the address is taken; EINVAL for impossible options, and for frames so long that they
    ///   need too many chunks; EAGAIN when the system allows no more threads.
    public init(
        _ codec: Codec, on address: Address = .loopback(), options: StreamHub.Options = StreamHub.Options(),
        patience: Duration = .seconds(10),
        handler: @escaping @Sendable () -> any FrameHandler<Codec>
    ) throws(SystemError) {
        var options = options
        let capacity = max(1, options.chunkCapacity)
        let batch = max(FramedConnection<Codec>.standardBatch, codec.maximumFrameLength)
        // Answers as long as what they answer: so many batches, not all of them full, and so many chunks for each.
        let batches = 1 + 2 * (capacity + codec.maximumFrameLength) / batch
        let needed = options.pendingReads * batches * ((batch + capacity - 1) / capacity)
        options.maximumPendingSends = max(options.maximumPendingSends, needed)
        let hub = try StreamHub(options)
        let ledger = FrameLedger()
        self.hub = hub
        self.ledger = ledger
        var started: FailureSweep?
        do throws(SystemError) {
            let sweep = try FailureSweep(hub, patience: patience)
            started = sweep
            self.sweep = sweep
            self.address = try hub.listen(on: address) { _ in
                FramedConnection(codec, handler: handler(), ledger: ledger, sweep: sweep)
            }
        } catch {
            started?.stop()
            hub.stop()
            throw error
        }
    }

    /// Closes every connection and ends the workers.
    ///
    /// - Returns: Whether everything is back.
    @discardableResult
    public func stop() -> Bool {
        sweep.stop()
        return hub.stop()
    }
}

/// Gives every message back: the stage's handler.
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
