/// What is wrong with a stream of frames, or with a field of one, and where: the offset in the stream. (I6.4)
public struct FrameError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong.
    public let fault: Fault
    /// Where, in bytes. A reader counts from the beginning of the stream; code that reads a field of a frame counts from
    /// the beginning of what it was given.
    public let offset: Int

    /// The faults that there are.
    public enum Fault: Hashable, Sendable {
        /// A length that is smaller than its own header, or than the codec allows.
        case lengthTooSmall(Int, minimum: Int)
        /// A length beyond the limit. Nothing has been allocated for it.
        case lengthTooLarge(Int, maximum: Int)
        /// As many bytes as a line may have, and no end of line among them.
        case lineTooLong(maximum: Int)
        /// A line that is to be written has the end of a line in its middle: it would be read as two.
        case lineEndInside
        /// The stream ended within a frame: so many bytes of it have come; of how many, where that is known.
        case endedInside(have: Int, of: Int?)
        /// A field reaches beyond the bytes that are there.
        case outOfBounds(wanted: Int, available: Int)
        /// Bytes that were to be a text are none.
        case notUTF8
        /// A buffer holds as much as it may.
        case bufferFull(limit: Int)
        /// The connection carries something else at present, and messages are refused meanwhile.
        case refused
    }

    /// A fault and its place.
    public init(_ fault: Fault, at offset: Int) {
        self.fault = fault
        self.offset = offset
    }

    /// The same fault, told from `bytes` further back: from the stream's beginning instead of the frame's.
    func moved(by bytes: Int) -> FrameError { FrameError(fault, at: offset + bytes) }

    /// One line.
    public var description: String {
        let what =
            switch fault {
            case .lengthTooSmall(let length, let minimum):
                "a length of \(length), where the least is \(minimum)"
            case .lengthTooLarge(let length, let maximum):
                "a length of \(length), where the most is \(maximum)"
            case .lineTooLong(let maximum): "no end of line within \(maximum) bytes"
            case .lineEndInside: "an end of line in the middle of a line"
            case .endedInside(let have, let all?): "the stream ended after \(have) of a frame's \(all) bytes"
            case .endedInside(let have, nil): "the stream ended after \(have) bytes of a frame"
            case .outOfBounds(let wanted, let available): "\(wanted) bytes wanted, \(available) are there"
            case .notUTF8: "no text in UTF-8"
            case .bufferFull(let limit): "the buffer is full with \(limit) bytes"
            case .refused: "messages are refused at present"
            }
        return "offset \(offset): \(what)"
    }
}
