import Framing

/// The heads of HTTP/1.1 requests: lines, the last of them empty. A frame is a whole head with that line; an empty line where a
/// head should begin is a frame of its own, as some clients send one too many.
///
/// What is written is written as it is: an answer is its program's text.
public struct RequestHeads: FrameCodec, Hashable {
    /// The most bytes of a head.
    public let maximumFrameLength: Int

    /// A description of heads.
    public init(maximumLength: Int = 8192) {
        precondition(maximumLength >= 2, "the empty line alone has two bytes")
        maximumFrameLength = maximumLength
    }

    /// Looks at the ends of line among the new bytes. One ends the head if there is nothing between it and the end before.
    public func scan(held: RawSpan, next: RawSpan) throws(FrameError) -> FrameExtent {
        func byte(_ place: Int) -> UInt8 {
            place < held.byteCount
                ? held.unsafeLoad(fromByteOffset: place, as: UInt8.self)
                : next.unsafeLoad(fromByteOffset: place - held.byteCount, as: UInt8.self)
        }
        // No further than a head may reach: all places below are within the two.
        let end = min(held.byteCount + next.byteCount, maximumFrameLength)
        for place in held.byteCount..<max(end, held.byteCount) where byte(place) == RequestHeads.lf {
            var before = place - 1
            if before >= 0, byte(before) == RequestHeads.cr { before -= 1 }
            if before < 0 || byte(before) == RequestHeads.lf {
                return .whole(length: place + 1, message: 0..<place + 1)
            }
        }
        guard end < maximumFrameLength else {
            throw FrameError(.lineTooLong(maximum: maximumFrameLength), at: maximumFrameLength)
        }
        return .partial(of: nil)
    }

    /// Writes the bytes.
    public func append(_ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError) {
        try buffer.append(message)
    }

    static let (cr, lf) = (UInt8(ascii: "\r"), UInt8(ascii: "\n"))
}
