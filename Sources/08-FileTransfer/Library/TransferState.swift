import Kernel

/// How long a transfer waits for what.
public struct TransferLimits: Sendable {
    /// For an answer to an announcement or a question, in nanoseconds.
    public let answer: UInt64
    /// For the next bytes to move, and for the last word, in nanoseconds.
    public let stall: UInt64
    /// The slowest rate that is waited for, over the whole of a transfer, in bytes per second.
    public let slowest: Int
    /// From this age of a transfer on its rate is looked at, in nanoseconds.
    public let grace: UInt64

    /// Limits in the unit of a program. Bytes that come now and then put the end of a stall off, again and again; the
    /// slowest rate is what ends that. 0 stands for any.
    public init(
        answer: Duration = .seconds(10), stall: Duration = .seconds(30), slowest: Int = 16 << 10,
        after grace: Duration = .seconds(30)
    ) {
        // At most 30 years, so that adding it to a time is always a time.
        let limits = [answer, stall, grace].map { UInt64(min(max(0, $0 / .nanoseconds(1)), 1e18)) }
        (self.answer, self.stall, self.grace, self.slowest) = (limits[0], limits[1], limits[2], slowest)
    }

    /// Whether so many bytes since then are too few. A clock may have looked before.
    func isTooSlow(_ bytes: UInt64, since start: UInt64, now: UInt64) -> Bool {
        let elapsed = now > start ? now - start : 0
        return elapsed >= grace && Double(bytes) * 1e9 < Double(slowest) * Double(elapsed)
    }
}

/// One side of a transfer, without a socket or a file: what may happen, and what is to be done then. Both sides go
/// through the same phases and count the same bytes; what only one of them does stands under its name.
///
/// announced → moving → completed → over. Whatever happens too late, or twice, changes nothing any more; whatever does
/// not fit ends the transfer. (I8.3) Times are nanoseconds on the monotonic clock.
public struct TransferState: Sendable {
    /// Where it stands.
    public enum Phase: Sendable { case announced, moving, completed, over }

    /// What is to be done next.
    public enum Step: Equatable, Sendable {
        /// Nothing: something else has to happen first.
        case wait
        /// The sender: hand this piece of the file to the system.
        case piece(offset: UInt64, count: Int)
        /// The sender: everything has been handed over and summed up, so say it.
        case complete
        /// It is there. The receiver: all of it is on the disk, and the sums agree, so give it its name.
        case whole
        /// It will not be there. The peer is to be told unless it has said so itself.
        case failed(TransferFailure, tells: Bool)
    }

    /// Bytes of the file, as announced.
    public let size: UInt64
    /// The most bytes of a piece at the sender; 0 at the receiver.
    public let pieceLimit: Int
    /// Where it stands.
    public private(set) var phase = Phase.announced
    /// Bytes that the heads of pieces have promised.
    public private(set) var promised: UInt64 = 0
    /// Those that have been handed to the system, or have come from it.
    public private(set) var moved: UInt64 = 0
    /// Those that are summed up: at the sender read before they move, at the receiver also written after they have.
    public private(set) var summed: UInt64 = 0
    /// What the sender says the sum is.
    private var sum: UInt64 = 0
    private var taken: UInt64?
    /// When the receiver agreed, and what its system had taken of the connection by then.
    private var start: (now: UInt64, taken: UInt64?)
    private var isSlow = false
    private let limits: TransferLimits
    private var deadline: UInt64

    /// A file of so many bytes has been announced.
    ///
    /// - Parameter pieceLimit: The most bytes of a piece; nil at the receiver.
    public init(size: UInt64, pieceLimit: Int? = nil, limits: TransferLimits, now: UInt64) {
        let most = Socket.transmitLimit - TransferMessage.codec.maximumFrameLength
        (self.size, self.pieceLimit) = (size, pieceLimit.map { min(max(1, $0), most) } ?? 0)
        (self.limits, start) = (limits, (now, nil))
        // A receiver that has not agreed yet waits for its own disk.
        deadline = pieceLimit == nil ? .max : now + limits.answer
    }

    private var isSending: Bool { pieceLimit > 0 }

    /// Bytes of a piece that has begun. At the sender no other piece, and no next file, while there are some. (I8.1)
    public var inFlight: UInt64 { promised - moved }

    // MARK: Both sides

    /// The receiver has agreed.
    public mutating func agreed(now: UInt64) -> Step {
        guard phase == .announced else { return fail(.nonsense) }
        phase = .moving
        start = (now, taken)
        deadline = now + limits.stall
        return proceed(now: now)
    }

    /// It ends here, for this reason: this side's, or one that the peer gave and so need not be told.
    public mutating func fail(_ failure: TransferFailure, tells: Bool = true) -> Step {
        guard phase != .over else { return .wait }
        phase = .over
        return .failed(failure, tells: tells)
    }

    /// Time has passed.
    public mutating func tick(now: UInt64) -> Step {
        guard phase != .over else { return .wait }
        if now >= deadline { return fail(phase == .moving || !isSending ? .stalled : .noAnswer) }
        // As long as bytes wait for the receiver's own disk, it is not the sender that is slow.
        guard phase == .moving, isSending || moved == summed,
            limits.isTooSlow(crossed, since: start.now, now: now)
        else { return .wait }
        isSlow = true
        return fail(.tooSlow)
    }

    /// Bytes that have moved since the receiver agreed: at the sender also those of a large piece that have left.
    private var crossed: UInt64 {
        guard let taken, let before = start.taken, taken >= before else { return moved }
        return max(moved, taken - before)
    }

    // MARK: The sender

    /// How far the summing up may be ahead of the sending, which follows it: what has been read for the sum is still in
    /// memory when it is sent, and the sum is there when all has been sent.
    public var mayBeSummed: UInt64 { min(size, moved + UInt64(2 * pieceLimit)) }

    /// So many more bytes have been read and summed up.
    public mutating func summedUp(_ count: Int, now: UInt64) -> Step {
        summed += UInt64(count)
        if phase == .moving { deadline = now + limits.stall }
        return proceed(now: now)
    }

    /// The next step. It is also asked for when what was to be done was not possible yet.
    public mutating func proceed(now: UInt64) -> Step {
        guard isSending, phase == .moving, inFlight == 0 else { return .wait }
        let count = min(size - moved, UInt64(pieceLimit))
        guard moved + count <= summed else { return .wait }
        if count > 0 { return .piece(offset: moved, count: Int(count)) }
        phase = .completed
        deadline = now + limits.stall
        return .complete
    }

    /// The piece that was asked for is being handed over.
    public mutating func pieceBegun(_ count: Int) { promised += UInt64(count) }

    /// It has been.
    public mutating func pieceSent(now: UInt64) -> Step {
        moved = promised
        deadline = now + limits.stall
        return proceed(now: now)
    }

    /// The other side's system has taken so many bytes of the connection. When they have become more, they move, if only
    /// within a piece: on a slow line a large one takes its time.
    public mutating func acknowledged(_ count: UInt64?, now: UInt64) {
        let isWaiting = phase == .moving || phase == .completed || inFlight > 0
        if isWaiting, count != taken { deadline = now + limits.stall }
        taken = count
    }

    /// It is over, by this limit or for another reason, and the piece that has to be sent to its end does not move.
    public func isStuck(now: UInt64) -> Bool { phase == .over && inFlight > 0 && (isSlow || now >= deadline) }

    /// The receiver has the whole file.
    public mutating func verified() -> Step {
        guard phase == .completed else { return fail(.nonsense) }
        phase = .over
        return .whole
    }

    // MARK: The receiver

    /// A piece is about to come. It has to be the next one, and within the announced size. (I8.4) A promise is not a
    /// byte: only what comes puts the end of the wait off. (I8.3)
    public mutating func piece(offset: UInt64, count: UInt64) -> Step {
        guard phase == .moving, offset == promised, count <= size - promised else {
            return fail(.sizeDiffers)
        }
        promised += count
        return .wait
    }

    /// Bytes of that piece have come. Returns where they belong; nil when they are not wanted any more.
    public mutating func bytes(_ count: Int, now: UInt64) -> UInt64? {
        guard phase == .moving else { return nil }
        defer { moved += UInt64(count) }
        deadline = now + limits.stall
        return moved
    }

    /// Bytes have been written, and before that summed up.
    ///
    /// - Parameter sum: The sum of the whole file. Asked for when all of it is written.
    public mutating func wrote(_ count: Int, now: UInt64, sum: () -> UInt64) -> Step {
        summed += UInt64(count)
        deadline = now + limits.stall
        return compare(sum)
    }

    /// The sender says that this was all, and what the sum of it was. The file is what it was to be, or it is nothing. (I8.4)
    public mutating func completed(sum: UInt64, now: UInt64, is actual: () -> UInt64) -> Step {
        guard phase == .moving else { return fail(.nonsense) }
        guard moved == size else { return fail(.sizeDiffers) }
        (phase, self.sum, deadline) = (.completed, sum, now + limits.stall)
        return compare(actual)
    }

    private mutating func compare(_ actual: () -> UInt64) -> Step {
        guard phase == .completed, summed == size else { return .wait }
        guard actual() == sum else { return fail(.checksumDiffers) }
        phase = .over
        return .whole
    }
}
