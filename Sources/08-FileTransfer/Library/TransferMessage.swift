import Framing

/// What the two sides tell each other, one frame each. All have the same fields; not all of them use all.
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
        /// Anybody: `text` has nothing to do with files.
        case words
    }

    /// What is said.
    public var kind: Kind
    /// The number of the file or, for `ask` and `decline`, of the question.
    public var id: UInt32
    /// A number of bytes, a question's number, or a reason.
    public var count: UInt32
    /// A size, an offset, or a checksum.
    public var value: UInt64
    /// A name or words, as bytes.
    public var text: [UInt8]

    /// The longest text. A name that is too long for a file still fits: it is to be refused, not to end the connection.
    public static let maximumText = 32_768
    private static let headLength = 17
    /// The frames on the wire: four bytes of length, then the message.
    public static let codec = LengthPrefixed(.four, .bigEndian, maximumLength: headLength + maximumText)

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

    /// The message as a frame. - Throws: `lengthTooLarge` beyond ``maximumText``.
    public func frame() throws(FrameError) -> [UInt8] {
        var message = SplitBuffer(limit: TransferMessage.codec.maximumLength)
        try message.append(kind.rawValue, .bigEndian)
        try message.append(id, .bigEndian)
        try message.append(count, .bigEndian)
        try message.append(value, .bigEndian)
        try message.append(text.span.bytes)
        var frame = SplitBuffer(limit: TransferMessage.codec.maximumFrameLength)
        try message.withBytes { bytes throws(FrameError) in
            try TransferMessage.codec.append(bytes, to: &frame)
        }
        return frame.withBytes { $0.withUnsafeBytes { Array($0) } }
    }
}
