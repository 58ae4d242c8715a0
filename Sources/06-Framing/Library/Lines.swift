import Glibc

/// Frames that end with the end of a line, for people with `nc` and for programs that speak in text.
///
/// LF ends a line. CRs right before it belong to the end, whatever sent it: so what was read as a line can be written as
/// one.
public struct Lines: FrameCodec, Hashable {
    /// What is written behind a line.
    public enum End: Sendable, CaseIterable {
        /// LF, as Unix has it.
        case lf
        /// CR and LF, as the Internet's older protocols have it.
        case crlf
    }

    /// What is written behind a line.
    public let end: End
    /// The most bytes of a line, without its end.
    public let maximumLength: Int

    private static let lf = UInt8(ascii: "\n")
    private static let cr = UInt8(ascii: "\r")

    /// A description of lines.
    public init(_ end: End = .lf, maximumLength: Int = 1024) {
        precondition(maximumLength >= 0, "a line has no fewer than 0 bytes")
        self.end = end
        // There are no longer ones, and sums with it stay numbers.
        self.maximumLength = min(maximumLength, 1 << 32)
    }

    /// The longest line, CR and LF.
    public var maximumFrameLength: Int { maximumLength + 2 }

    /// Looks for LF among the new bytes only: there is none among the earlier ones. So a line costs one look at each
    /// of its bytes, in however many pieces it comes.
    public func scan(held: RawSpan, next: RawSpan) throws(FrameError) -> FrameExtent {
        let room = maximumFrameLength - held.byteCount
        let looked = next.extracting(first: min(next.byteCount, room))
        guard let index = looked.withUnsafeBytes({ position(of: Lines.lf, in: $0) }) else {
            // So many bytes and no end: nor would one more byte help, unless it ends a line that is just full.
            let present = held.byteCount + looked.byteCount
            let isFull = present > maximumLength
            let mayEnd = present == maximumLength + 1 && byteOf(held, looked, at: present - 1) == Lines.cr
            guard !isFull || mayEnd else {
                throw FrameError(.lineTooLong(maximum: maximumLength), at: maximumLength)
            }
            return .partial(of: nil)
        }
        var count = held.byteCount + index
        while count > 0, byteOf(held, looked, at: count - 1) == Lines.cr { count -= 1 }
        guard count <= maximumLength else {
            throw FrameError(.lineTooLong(maximum: maximumLength), at: maximumLength)
        }
        return .whole(length: held.byteCount + index + 1, message: 0..<count)
    }

    private func position(of byte: UInt8, in bytes: UnsafeRawBufferPointer) -> Int? {
        guard let base = bytes.baseAddress, let found = memchr(base, Int32(byte), bytes.count) else {
            return nil
        }
        return UnsafeRawPointer(found) - base
    }

    /// Writes a line and its end.
    ///
    /// - Throws: `lengthTooLarge` when it is longer than ``maximumLength``, `lineEndInside` when it has an LF in it or
    ///   a CR at its end and would be read as something else; `bufferFull`.
    public func append(_ message: RawSpan, to buffer: inout SplitBuffer) throws(FrameError) {
        let count = message.byteCount
        guard count <= maximumLength else {
            throw FrameError(.lengthTooLarge(count, maximum: maximumLength), at: 0)
        }
        if let index = message.withUnsafeBytes({ position(of: Lines.lf, in: $0) }) {
            throw FrameError(.lineEndInside, at: index)
        }
        if count > 0, message.unsafeLoad(fromByteOffset: count - 1, as: UInt8.self) == Lines.cr {
            throw FrameError(.lineEndInside, at: count - 1)
        }
        guard count + (end == .lf ? 1 : 2) <= buffer.limit - buffer.count else {
            throw FrameError(.bufferFull(limit: buffer.limit), at: buffer.count)
        }
        try buffer.append(message)
        if end == .crlf { try buffer.append(Lines.cr, .bigEndian) }
        try buffer.append(Lines.lf, .bigEndian)
    }
}
