import Framing
import Kernel
import Stage

/// Valid streams that something has happened to: bytes changed, lost, doubled, lengths that lie. Every reader is asked
/// to deliver what is valid in front, to say what is wrong behind it and where, and to keep to its limit.
public struct MutatedStreams {
    /// What a run has seen.
    public struct Report: Sendable {
        /// Streams read.
        public var streams = 0
        /// Streams in which something was found to be wrong.
        public var faulty = 0
        /// Messages delivered.
        public var messages = 0
        /// The largest part of its limit that any reader has allocated, in percent.
        public var peakPercent = 0
        /// What went wrong; empty when nothing did. The first few only.
        public var complaints: [String] = []

        /// Nothing seen yet.
        public init() {}
    }

    private var dice: Dice
    private let seed: UInt64
    /// What has been seen so far.
    public private(set) var report = Report()

    /// Streams that are the same for the same seed.
    public init(seed: UInt64) {
        self.seed = seed
        dice = Dice(seed: seed)
    }

    /// Reads a number of streams.
    public mutating func run(_ count: Int) {
        for _ in 0..<count { one() }
    }

    private mutating func one() {
        report.streams += 1
        if dice.roll(5) == 0 {
            let codec = Lines(dice.roll(2) == 0 ? .lf : .crlf, maximumLength: dice.roll(40))
            check(codec, forbidden: [10, 13]) { PlainReference.lines($0, maximum: codec.maximumLength) }
        } else {
            let codec = LengthPrefixed(
                dice.roll(2) == 0 ? .two : .four, dice.roll(2) == 0 ? .bigEndian : .littleEndian,
                countsHeader: dice.roll(2) == 0, maximumLength: dice.roll(60))
            let reference = PlainReference(codec)
            check(codec, forbidden: []) { reference.outcome(of: $0) }
        }
    }

    private mutating func check<Codec: FrameCodec>(
        _ codec: Codec, forbidden: Set<UInt8>, reference: ([UInt8]) -> Outcome
    ) {
        let messages = messages(codec, forbidden)
        guard let valid = try? Streams.encode(messages, codec) else {
            return complain("a valid message was refused by \(codec)")
        }
        let (stream, untouched) = mutate(valid)
        let cuts = self.cuts(stream.count)
        let reader = FrameReader(codec)
        let outcome = Streams.read(stream, cuts: cuts, reader)
        report.messages += outcome.messages.count
        if outcome.error != nil { report.faulty += 1 }
        report.peakPercent = max(report.peakPercent, reader.peakCapacity * 100 / codec.maximumFrameLength)

        let expected = reference(stream)
        if outcome != expected { complain("\(codec), cuts \(cuts): \(outcome), not \(expected)") }
        if reader.peakCapacity > codec.maximumFrameLength {
            complain("\(codec): \(reader.peakCapacity) bytes allocated")
        }
        // The messages that nothing happened to, whatever the reference says.
        var whole = 0
        var prefix: [[UInt8]] = []
        for message in messages {
            whole += (try? Streams.encode([message], codec).count) ?? 0
            if whole > untouched { break }
            prefix.append(message)
        }
        if !outcome.messages.starts(with: prefix) {
            complain("\(codec), cuts \(cuts): a valid message is missing")
        }
    }

    /// One stream of such frames, where it is cut, and what is to come of it.
    public mutating func next(_ codec: LengthPrefixed) -> (stream: [UInt8], cuts: [Int], expected: Outcome) {
        let valid = (try? Streams.encode(messages(codec, []), codec)) ?? []
        let (stream, _) = mutate(valid)
        return (stream, cuts(stream.count), PlainReference(codec).outcome(of: stream))
    }

    private mutating func messages<Codec: FrameCodec>(_ codec: Codec, _ forbidden: Set<UInt8>) -> [[UInt8]] {
        let room = max(0, codec.maximumFrameLength - 4)
        return (0..<1 + dice.roll(8)).map { _ in
            (0..<dice.roll(room + 1)).map { _ in byte(except: forbidden) }
        }
    }

    private mutating func byte(except forbidden: Set<UInt8>) -> UInt8 {
        while true {
            let byte = UInt8(dice.roll(256))
            if !forbidden.contains(byte) { return byte }
        }
    }

    /// Returns the stream, and how many bytes at its front nothing has happened to.
    private mutating func mutate(_ valid: [UInt8]) -> ([UInt8], Int) {
        var stream = valid
        var untouched = valid.count
        for _ in 0..<dice.roll(4) {
            let place = dice.roll(stream.count)
            let end = min(stream.count, place + 1 + dice.roll(9))
            untouched = min(untouched, place)
            switch dice.roll(7) {
            case 0 where place < stream.count: stream[place] ^= 1 << UInt8(dice.roll(8))
            case 1 where place < stream.count:
                stream[place] = [0, 1, 0x0A, 0x0D, 0x7F, 0x80, 0xFF][dice.roll(7)]
            case 2: stream.removeSubrange(place..<end)
            case 3: stream.insert(contentsOf: stream[place..<end], at: place)
            case 4: stream.insert(UInt8(dice.roll(256)), at: place)
            case 5: stream.removeSubrange(place...)
            default: for index in place..<end { stream[index] = 0xFF }
            }
        }
        return (stream, untouched)
    }

    private mutating func cuts(_ count: Int) -> [Int] {
        let largest = 1 + dice.roll(max(1, count))
        var cuts: [Int] = []
        var place = 0
        while true {
            // Now and then a chunk is empty.
            place += dice.roll(largest + 1)
            if place >= count { return cuts }
            cuts.append(place)
        }
    }

    private mutating func complain(_ what: String) {
        if report.complaints.count < 5 {
            report.complaints.append("seed \(seed), stream \(report.streams): \(what)")
        }
    }
}
