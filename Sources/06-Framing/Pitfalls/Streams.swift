import Framing
import Stage

/// Numbers that look random and are the same in every run that begins with the same seed.
public struct Dice: Sendable {
    private var state: UInt64

    /// Dice that fall as the seed wants it.
    public init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

    /// A number from 0 up to, not including, `sides`.
    public mutating func roll(_ sides: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(truncatingIfNeeded: (state &* 0x2545_F491_4F6C_DD1D) >> 33) % max(1, sides)
    }
}

/// What came of a stream.
public struct Outcome: Equatable, Sendable, CustomStringConvertible {
    /// The messages that were delivered, in their order.
    public var messages: [[UInt8]] = []
    /// What was wrong, if anything was.
    public var error: FrameError?

    /// What came of a stream.
    public init(messages: [[UInt8]] = [], error: FrameError? = nil) {
        self.messages = messages
        self.error = error
    }

    /// One line.
    public var description: String {
        "\(messages.map { $0.span.bytes.printable }), \(error?.description ?? "in order")"
    }
}

/// Streams of frames: made, cut and read.
public enum Streams {
    /// A stream of frames with these messages.
    public static func encode<Codec: FrameCodec>(_ messages: [[UInt8]], _ codec: Codec) throws(FrameError)
        -> [UInt8]
    {
        // As much as it takes: how long a header is, only the codec knows.
        var buffer = SplitBuffer(limit: .max)
        for message in messages { try codec.append(message.span.bytes, to: &buffer) }
        return buffer.withBytes { bytes in bytes.withUnsafeBytes { Array($0) } }
    }

    /// Reads a stream that is cut at these places, up to its end.
    ///
    /// - Parameter cuts: Offsets, in ascending order.
    public static func read<Codec: FrameCodec>(
        _ stream: [UInt8], cuts: [Int], _ reader: FrameReader<Codec>
    ) -> Outcome {
        var outcome = Outcome()
        do throws(FrameError) {
            var start = 0
            for end in cuts + [stream.count] {
                try reader.read(stream.span.bytes.extracting(start..<end)) { message in
                    outcome.messages.append(message.withUnsafeBytes { Array($0) })
                }
                start = end
            }
            try reader.endOfStream()
        } catch {
            outcome.error = error
        }
        return outcome
    }
}

/// What a stream of length-prefixed frames means, by the plainest means: all of it is there at once, in an array.
///
/// It shares nothing with the reader that it is to check.
public struct PlainReference {
    let width: Int
    let isBig: Bool
    let countsHeader: Bool
    let maximum: Int

    /// A reference for these frames.
    public init(_ codec: LengthPrefixed) {
        width = codec.width.rawValue
        isBig = codec.order == .bigEndian
        countsHeader = codec.countsHeader
        maximum = codec.maximumLength
    }

    /// What comes of a whole stream.
    public func outcome(of stream: [UInt8]) -> Outcome {
        var outcome = Outcome()
        var place = 0
        while place < stream.count {
            let have = stream.count - place
            if have < width {
                outcome.error = FrameError(.endedInside(have: have, of: nil), at: stream.count)
                return outcome
            }
            var digits = Array(stream[place..<place + width])
            if !isBig { digits.reverse() }
            let length = digits.reduce(0) { $0 * 256 + Int($1) }
            let extra = countsHeader ? width : 0
            if length < extra {
                outcome.error = FrameError(.lengthTooSmall(length, minimum: extra), at: place)
                return outcome
            }
            if length > maximum + extra {
                outcome.error = FrameError(.lengthTooLarge(length, maximum: maximum + extra), at: place)
                return outcome
            }
            let whole = width + length - extra
            if have < whole {
                outcome.error = FrameError(.endedInside(have: have, of: whole), at: stream.count)
                return outcome
            }
            outcome.messages.append(Array(stream[place + width..<place + whole]))
            place += whole
        }
        return outcome
    }

    /// What comes of a whole stream of lines.
    public static func lines(_ stream: [UInt8], maximum: Int) -> Outcome {
        var outcome = Outcome()
        var place = 0
        while place < stream.count {
            guard let end = stream[place...].firstIndex(of: 10) else {
                let rest = stream.count - place
                let mayEnd = rest == maximum + 1 && stream.last == 13
                outcome.error =
                    rest > maximum && !mayEnd
                    ? FrameError(.lineTooLong(maximum: maximum), at: place + maximum)
                    : FrameError(.endedInside(have: rest, of: nil), at: stream.count)
                return outcome
            }
            var line = stream[place..<end]
            while line.last == 13 { line.removeLast() }
            if line.count > maximum || end - place > maximum + 1 {
                outcome.error = FrameError(.lineTooLong(maximum: maximum), at: place + maximum)
                return outcome
            }
            outcome.messages.append(Array(line))
            place = end + 1
        }
        return outcome
    }
}
