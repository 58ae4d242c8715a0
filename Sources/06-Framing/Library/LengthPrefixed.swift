/// Frames that begin with their length: a header of two or four bytes, then the message.
public struct LengthPrefixed: FrameCodec, Hashable {
    /// The header's size.
    public enum Width: Int, Sendable, CaseIterable {
        /// A length up to 65,535.
        case two = 2
        /// A length up to 4,294,967,295.
        case four = 4
    }

    /// The header's size.
    public let width: Width
    /// Which byte of the length comes first.
    public let order: ByteOrder
    /// Whether the length counts the header's own bytes.
    public let countsHeader: Bool
    /// The most bytes of a message.
    public let maximumLength: Int

    /// A description of frames.
    ///
    /// - Parameter maximumLength: The most bytes of a message, at least 0. More than the header can tell is the same
    ///   as the most that it can tell.
    public init(
        _ width: Width = .four, _ order: ByteOrder = .bigEndian, countsHeader: Bool = false,
        maximumLength: Int = 8192
    ) {
        precondition(maximumLength >= 0, "a message has no fewer than 0 bytes")
        self.width = width
        self.order = order
        self.countsHeader = countsHeader
        let tellable = (1 << (8 * width.rawValue)) - 1 - (countsHeader ? width.rawValue : 0)
        self.maximumLength = min(maximumLength, tellable)
    }

    /// The frames of the article that chapter 05 speaks of: four bytes in the order of a PC's memory, not counting
    /// themselves; with them, a package has up to 8,192.
    public static let article = LengthPrefixed(.four, .littleEndian, maximumLength: 8188)

    /// Header and the longest message.
    public var maximumFrameLength: Int { width.rawValue + maximumLength }

    /// Reads the header as soon as all of it is there, and judges the length before anything is made of it. (I6.3)
    public func scan(held: RawSpan, next: RawSpan) throws(FrameError) -> FrameExtent {
        let header = width.rawValue
        let present = held.byteCount + next.byteCount
        guard present >= header else { return .partial(of: nil) }
        // At most 32 bits without a sign, in 64: it cannot be negative, and adding to it cannot overflow.
        var announced = 0
        for index in 0..<header {
            let byte = byteOf(held, next, at: order == .bigEndian ? index : header - 1 - index)
            announced = announced << 8 | Int(byte)
        }
        let overhead = countsHeader ? header : 0
        guard announced >= overhead else {
            throw FrameError(.lengthTooSmall(announced, minimum: overhead), at: 0)
        }
        guard announced - overhead <= maximumLength else {
            throw FrameError(.lengthTooLarge(announced, maximum: maximumLength + overhead), at: 0)
        }
        let length = header + announced - overhead
        return present < length ? .partial(of: length) : .whole(length: length, message: header..<length)
    }

    /// Writes header and message.
    ///
    /// - Throws: `lengthTooLarge` when the message has more than ``maximumLength`` bytes; `bufferFull`.
    public func append(_ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError) {
        try appendHeader(message.byteCount, to: &buffer)
        try buffer.append(message)
    }

    /// Writes header, tag and message. The tag counts as a byte of the message.
    ///
    /// - Throws: as without a tag.
    public func append(tag: UInt8, _ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError) {
        try appendHeader(1 + message.byteCount, to: &buffer)
        try buffer.append(tag, order)
        try buffer.append(message)
    }

    /// Nothing is written unless the message will fit behind it.
    private func appendHeader(_ count: Int, to buffer: inout SplitBuffer) throws(FrameError) {
        guard count <= maximumLength else {
            throw FrameError(.lengthTooLarge(count, maximum: maximumLength), at: 0)
        }
        guard width.rawValue + count <= buffer.limit - buffer.count else {
            throw FrameError(.bufferFull(limit: buffer.limit), at: buffer.count)
        }
        let length = count + (countsHeader ? width.rawValue : 0)
        switch width {
        case .two: try buffer.append(UInt16(length), order)
        case .four: try buffer.append(UInt32(length), order)
        }
    }
}
