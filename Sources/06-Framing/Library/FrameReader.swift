/// Makes messages of a stream of bytes: the same ones, whatever pieces it comes in. (I6.1)
///
/// A frame that lies whole in one chunk is lent where it lies, without a copy. (I6.2) The beginning of a frame whose
/// rest has not come is copied into one buffer; that is bounded by the codec's longest frame, and the codec has judged
/// the length before a byte of it is kept. (I6.3) An error names the offset in the stream, everything before it has
/// been delivered, and after it nothing is delivered any more. (I6.4)
///
/// One thread at a time, and the chunks in their order: that is the stream's business. (I6.5)
public final class FrameReader<Codec: FrameCodec> {
    /// How the frames lie in the stream.
    public let codec: Codec
    /// Where the next frame begins, or the next raw byte: in bytes from the stream's beginning.
    public private(set) var offset = 0
    /// Raw bytes that are still to come before the next frame.
    public private(set) var rawBytesLeft = 0
    private var isStopped = false
    private var isLending = false
    private var isBroken = false
    private var held: SplitBuffer
    /// What the reader has done.
    public private(set) var counters = Counters()
    private var heldLength: Int?
    private var failure: FrameError?

    /// What a reader has done so far.
    public struct Counters: Sendable, Equatable {
        /// Frames delivered.
        public fileprivate(set) var frames = 0
        /// Those of them that came in several pieces and had to be put together.
        public fileprivate(set) var joined = 0
        /// Bytes copied for it.
        public fileprivate(set) var copiedBytes = 0
        /// Bytes passed through without framing.
        public fileprivate(set) var rawBytes = 0
    }

    /// A reader at the beginning of a stream. It has no memory until a frame is cut.
    public init(_ codec: Codec) {
        self.codec = codec
        held = SplitBuffer(limit: codec.maximumFrameLength)
    }

    /// Bytes of a frame whose rest has not come yet.
    public var heldBytes: Int { held.count }

    /// The most memory that the reader has ever had for such a frame: never more than the codec's longest one.
    public var peakCapacity: Int { held.peakCapacity }

    /// Takes the next bytes of the stream, and lends what they make whole, in order.
    ///
    /// - Parameters:
    ///   - bytes: The next chunk, of any size.
    ///   - raw: Gets the bytes that ``passThrough(_:)`` has asked for, as they come: which of `bytes` they are.
    ///   - message: Gets each message. It may call ``passThrough(_:)`` and ``stop()``, but not `read`.
    /// - Throws: What is wrong with the stream; again so on every later call.
    public func read(
        _ bytes: RawSpan, raw: (Range<Int>) -> Void = { _ in }, message: (RawSpan) -> Void
    ) throws(FrameError) {
        if isBroken { throw failure! }
        precondition(!isLending, "a reader reads on when what it has lent is given back")
        var position = 0
        while position < bytes.byteCount, !isStopped {
            let rest = bytes.extracting(droppingFirst: position)
            if rawBytesLeft > 0 {
                let count = min(rawBytesLeft, rest.byteCount)
                rawBytesLeft -= count
                offset += count
                counters.rawBytes += count
                lend { raw(position..<position + count) }
                position += count
                continue
            }
            switch try scan(rest) {
            case .whole(let length, let range):
                // A codec that finds a frame without new bytes, or with bytes that are not there, would never end.
                precondition(length > held.count && length - held.count <= rest.byteCount)
                counters.frames += 1
                offset += length
                if held.isEmpty {
                    position += length
                    lend { message(rest.extracting(range)) }
                } else {
                    let missing = length - held.count
                    position += missing
                    try hold(rest.extracting(first: missing))
                    counters.joined += 1
                    lend { held.withBytes { message($0.extracting(range)) } }
                    held.removeAll()
                }
            case .partial(let length):
                // The codec has promised that no frame is longer than the buffer's limit.
                try hold(rest)
                heldLength = length
                return
            }
        }
    }

    /// The next `count` bytes of the stream are no frames: they go to `raw`, without a copy, as they come. After them
    /// the next frame begins.
    ///
    /// To be called from within `message`, or between two frames.
    public func passThrough(_ count: Int) {
        precondition(count >= 0 && (isLending || held.isEmpty), "raw bytes begin behind a frame")
        rawBytesLeft += count
    }

    /// Nothing more is delivered from now on, whatever comes: the connection is to be closed.
    public func stop() { isStopped = true }

    /// The stream has ended.
    ///
    /// - Throws: `endedInside` when that was within a frame, or within raw bytes. Between two frames it is in order.
    public func endOfStream() throws(FrameError) {
        if let failure { throw failure }
        guard !isStopped else { return }
        if rawBytesLeft > 0 { throw FrameError(.endedInside(have: 0, of: rawBytesLeft), at: offset) }
        if !held.isEmpty {
            throw FrameError(.endedInside(have: held.count, of: heldLength), at: offset + held.count)
        }
    }

    @inline(__always)
    private func lend(_ body: () -> Void) {
        isLending = true
        body()
        isLending = false
    }

    @inline(__always)
    private func scan(_ next: RawSpan) throws(FrameError) -> FrameExtent {
        do throws(FrameError) {
            return try held.withBytes { bytes throws(FrameError) in try codec.scan(held: bytes, next: next) }
        } catch {
            failure = error.moved(by: offset)
            isBroken = true
            held.removeAll()
            throw failure!
        }
    }

    private func hold(_ bytes: RawSpan) throws(FrameError) {
        counters.copiedBytes += bytes.byteCount
        try held.append(bytes)
    }
}
