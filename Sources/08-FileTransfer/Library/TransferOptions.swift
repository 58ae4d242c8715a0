import Glibc
import Kernel
import Reordering

/// The limits and choices of file transfer.
public struct TransferOptions: Sendable {
    /// Where files arrive, and where those lie that are asked for. Nil: none of both.
    public var folder: String?
    /// Whether files are taken that this side has not asked for.
    public var takesUnasked = true
    /// Whether files of the folder are sent to peers that ask for them.
    public var answersQuestions = true
    /// Whether an arriving file replaces one of the same name. Otherwise it is refused.
    public var replaces = false
    /// Whether the room of an arriving file is reserved before its first byte.
    public var preallocates = true
    /// Whether an arrived file is on the disk itself, and not only in the system's memory, before it gets its name, and
    /// the name is before the sender hears of it. Safe against a power cut, and as slow as the disk.
    public var flushes = false
    /// The largest file that is taken, in bytes.
    public var maximumFileSize: Int64 = 1 << 40
    /// The most bytes of a piece: of a file that are sent without a chance to call it off, or to say something else on the
    /// connection. 512 KiB are 4 ms at 1 Gbit/s, 0.4 s at 10 Mbit/s, and half a minute at 128 kbit/s. Never more than the
    /// system permits in one transmit. Before the first of them goes out all have been read for the sum: the
    /// receiver's limit for a stall has to be longer than that takes.
    public var pieceLimit = 512 << 10
    /// Files that wait on one connection for the one under way; as many questions may be open. One more is `busy`.
    public var maximumWaitingFiles = 64
    /// Whether messages are refused while a file is under way in their direction, as the article's server does it.
    /// Otherwise they go between its pieces. (I8.1)
    public var refusesMessages = false
    /// Bytes that arriving files may take together; nil: what the disk has.
    public var room: Int64?
    /// The part of that room that files may take which come from one address without having been asked for.
    public var share = 0.25
    /// Where bytes are summed up. The work of one file comes one after the other; it is to be run once, on any thread. At
    /// once, by the worker that has them, unless a program has a better place.
    public var sums: @Sendable (_ work: @escaping @Sendable () -> Void) -> Void = { $0() }
    /// How long is waited for what.
    public var limits = TransferLimits()
    /// How the connections themselves are run.
    public var streams: StreamHub.Options

    /// The defaults.
    ///
    /// - Parameter folder: nil for a side that neither takes files nor gives any.
    public init(folder: String? = nil) {
        self.folder = folder
        streams = StreamHub.Options()
        // Large chunks: some are handed to a helper and back. Several: those that are being written count as pending reads.
        streams.chunkCapacity = 512 << 10
        streams.pendingReads = 4
        streams.maximumFreeChunks = 32
        streams.maximumConnections = 1_000
    }

    /// - Throws: ENOTDIR, ENOENT, EACCES when files cannot be put into the folder.
    func checkFolder() throws(SystemError) {
        guard let folder else { return }
        if access(folder.isEmpty ? "" : folder + "/.", W_OK | X_OK) != 0 {
            throw SystemError(errno, attempted: "write into the folder \(folder)")
        }
    }
}

/// A file that has gone across, whole.
public struct TransferReceipt: Sendable, Hashable {
    /// Its name.
    public let name: String
    /// Its length, in bytes.
    public let bytes: Int
    /// The sum of its bytes, the same on both sides.
    public let checksum: UInt64
    /// From the announcement to the last word.
    public let duration: Duration
}

/// How a transfer ended.
public typealias TransferResult = Result<TransferReceipt, TransferError>

/// How far a file is.
public struct TransferProgress: Sendable, Hashable {
    /// Its name.
    public let name: String
    /// Whether this side sends it.
    public let isSending: Bool
    /// Bytes that have been handed to the system here.
    public let bytes: Int
    /// Bytes of the whole file.
    public let total: Int
    /// Bytes per second since the beginning.
    public let rate: Double
    /// How long the rest will take at that rate; nil while nothing has moved.
    public var timeLeft: Duration? { rate > 0 ? .seconds(Double(total - bytes) / rate) : nil }
}

/// What a transfer tells the program. Called by workers, by the clock, and by the thread that calls off: to be short.
/// No lock is held.
public struct TransferObserver: Sendable {
    /// How far it is: at most every tenth of a second, and at the end of the bytes.
    public var progress: @Sendable (TransferProgress) -> Void
    /// It is over. Called once.
    public var finished: @Sendable (TransferResult) -> Void

    /// An observer.
    public init(
        progress: @escaping @Sendable (TransferProgress) -> Void = { _ in },
        finished: @escaping @Sendable (TransferResult) -> Void = { _ in }
    ) {
        self.progress = progress
        self.finished = finished
    }
}
