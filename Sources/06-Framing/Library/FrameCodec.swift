/// How frames lie in a stream of bytes: where each one ends, and what of it is the message.
///
/// A codec is a description without a state; what has come of a frame is with the reader.
public protocol FrameCodec: Sendable {
    /// The most bytes that a frame may take in the stream, with its header or terminator. No reader ever holds more.
    var maximumFrameLength: Int { get }

    /// Looks for the end of the first frame.
    ///
    /// - Parameters:
    ///   - held: The beginning of the frame, from earlier chunks: this codec has seen it and found no end. Mostly empty.
    ///   - next: The bytes that follow it.
    /// - Returns: `whole` when the frame ends within `next`; `partial` when it does not. A partial frame, with all
    ///   that is there of it, is never longer than ``maximumFrameLength``: a codec that cannot promise this throws.
    /// - Throws: What is wrong, with the offset from the frame's beginning.
    func scan(held: RawSpan, next: RawSpan) throws(FrameError) -> FrameExtent

    /// Writes a frame with this message at the back of a buffer.
    ///
    /// - Throws: What is wrong with the message; `bufferFull`. Then nothing was written.
    func append(_ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError)

    /// The same for a message that has one more byte in front: what reads the frame finds the tag, and the message behind
    /// it. A codec that can do this without a copy of the message has a function of its own for it.
    func append(tag: UInt8, _ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError)
}

extension FrameCodec {
    /// Puts the two together, and writes that.
    public func append(tag: UInt8, _ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError) {
        var whole = SplitBuffer(limit: 1 + message.byteCount)
        try whole.append(tag, .bigEndian)
        try whole.append(message)
        try whole.withBytes { bytes throws(FrameError) in try append(bytes, to: &buffer) }
    }
}

/// What a codec has found.
public enum FrameExtent: Equatable, Sendable {
    /// A whole frame: its length in the stream, and which of its bytes are the message.
    case whole(length: Int, message: Range<Int>)
    /// The beginning of one; how long it is going to be, where that is known.
    case partial(of: Int?)
}

/// A byte of the two taken together: a header, or an end of line, may be cut as well.
@inline(__always)
func byteOf(_ held: RawSpan, _ next: RawSpan, at index: Int) -> UInt8 {
    index < held.byteCount
        ? held.unsafeLoad(fromByteOffset: index, as: UInt8.self)
        : next.unsafeLoad(fromByteOffset: index - held.byteCount, as: UInt8.self)
}
