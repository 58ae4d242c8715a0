import Framing

/// What the two sides tell each other about files, one frame each. The first byte of a frame says whose it is: 0 is in front
/// of the program's own messages, 1 to 15 are about files.
///
/// All have the same fields; not all of them use all.
///
/// Each side numbers the files that it sends, and answers carry that number. So both can happen on one connection at
/// once, one file in each direction, and no message of the one is a message of the other. (I8.2)
public struct TransferMessage: Equatable, Sendable {
    /// What is said.
    public enum Kind: UInt8, Sendable, CaseIterable {
        /// The receiver: please send me the file `text`. An `announce` or a `decline` with the question's number answers.
        case ask = 1
        /// The sender: the file that you asked for will not come, for the reason `count`.
        case decline
        /// The sender: here is a file named `text` with `value` bytes, for your question `count`, or 0.
        case announce
        /// The receiver: go on.
        case agree
        /// The receiver: no, or no more, for the reason `count`. At any moment until `verified`.
        case refuse
        /// The sender: behind this frame `count` bytes of the file follow, raw, from its byte `value` on.
        case piece
        /// The sender: that was all, and its checksum is `value`.
        case complete
        /// The receiver: it is there, whole, under its name.
        case verified
        /// The sender: called off, for the reason `count`. At any moment between two pieces.
        case abort
    }

    /// What is said.
    public var kind: Kind
    /// The number of the file or, for `ask` and `decline`, of the question.
    public var id: UInt32
    /// A number of bytes, a question's number, or a reason.
    public var count: UInt32
    /// A size, an offset, or a checksum.
    public var value: UInt64
    /// A name, as bytes.
    public var text: [UInt8]

    /// What is in front of a message of the program.
    static let programTag: UInt8 = 0
    private static let headLength = 17
    /// The least that a codec's messages have to hold: the longest name of a file.
    static let minimumLength = headLength + SafeName.maximumLength
    /// Frames for programs that have none of their own: four bytes of length, then up to 32 KiB. A name that is too long
    /// for a file still fits: it is to be refused, not to end the connection.
    public static let codec = LengthPrefixed(.four, .bigEndian, maximumLength: 32_768)

    /// A message.
    public init(
        _ kind: Kind, _ id: UInt32 = 0, count: UInt32 = 0, value: UInt64 = 0,
        text: some Collection<UInt8> = []
    ) {
        (self.kind, self.id, self.count, self.value, self.text) = (kind, id, count, value, Array(text))
    }

    /// A message with a reason.
    public init(_ kind: Kind, _ id: UInt32, _ reason: TransferFailure) {
        self.init(kind, id, count: reason.code)
    }

    /// The reason in it.
    public var reason: TransferFailure { TransferFailure(code: count) }

    /// The message in a frame. No byte beyond the frame is looked at. - Throws: `outOfBounds` when it is none.
    public init(_ frame: RawSpan) throws(FrameError) {
        guard let kind = Kind(rawValue: try frame.integer(UInt8.self, at: 0, .bigEndian)) else {
            throw FrameError(.outOfBounds(wanted: 0, available: frame.byteCount), at: 0)
        }
        self.kind = kind
        id = try frame.integer(UInt32.self, at: 1, .bigEndian)
        count = try frame.integer(UInt32.self, at: 5, .bigEndian)
        value = try frame.integer(UInt64.self, at: 9, .bigEndian)
        text = frame.extracting(droppingFirst: TransferMessage.headLength).withUnsafeBytes { Array($0) }
    }

    /// What is behind the tag.
    var body: [UInt8] {
        let numbers = [id.bigEndian, count.bigEndian].flatMap { withUnsafeBytes(of: $0, Array.init) }
        return numbers + withUnsafeBytes(of: value.bigEndian, Array.init) + text
    }

    /// The message as a frame. - Throws: `lengthTooLarge` when the codec's messages are shorter.
    public func frame(_ codec: LengthPrefixed = TransferMessage.codec) throws(FrameError) -> [UInt8] {
        var frame = SplitBuffer(limit: codec.maximumFrameLength)
        try codec.append(tag: kind.rawValue, body.span.bytes, to: &frame)
        return frame.withBytes { $0.withUnsafeBytes { Array($0) } }
    }
}
