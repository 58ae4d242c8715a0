import Framing
import FramingPitfalls
import Testing

@Suite("Chapter 06: cut anywhere, changed anyhow")
struct Chapter06FramingSplits {
    /// A stream of 200 bytes, messages of all small lengths.
    private func stream<Codec: FrameCodec>(_ codec: Codec) throws -> ([[UInt8]], [UInt8]) {
        let text = Array("The network cuts where it likes, and glues together what it finds. ".utf8)
        var messages: [[UInt8]] = []
        var length = 0
        var bytes: [UInt8] = []
        while bytes.count < 200 {
            let overhead = try Streams.encode([[]], codec).count
            let message = Array(text.prefix(min(length, max(0, 200 - bytes.count - overhead))))
            let frame = try Streams.encode([message], codec)
            // The last frame ends at 200 exactly, or not at all.
            guard bytes.count + frame.count <= 200 else { break }
            messages.append(message)
            bytes += frame
            length += 4
        }
        return (messages, bytes)
    }

    private func everyPair<Codec: FrameCodec>(_ codec: Codec) throws {
        let (messages, bytes) = try stream(codec)
        #expect(bytes.count == 200 && messages.count > 5)
        var wrong = 0
        for first in 0...200 {
            for second in first...200 {
                let outcome = Streams.read(bytes, cuts: [first, second], FrameReader(codec))
                if outcome.messages != messages || outcome.error != nil { wrong += 1 }
            }
        }
        #expect(wrong == 0)
    }

    // I6.1
    @Test("Every pair of cuts in a stream of 200 bytes gives the same messages", arguments: everyPrefix)
    func everyPair(codec: LengthPrefixed) throws { try everyPair(codec) }

    // I6.1
    @Test("Every pair of cuts in 200 bytes of lines gives the same lines", arguments: Lines.End.allCases)
    func everyPairOfLines(end: Lines.End) throws { try everyPair(Lines(end)) }

    // I6.1
    @Test("Chunks of 1 to 200 bytes give the same messages", arguments: everyPrefix)
    func everySize(codec: LengthPrefixed) throws {
        let (messages, bytes) = try stream(codec)
        for size in 1...200 {
            let cuts = Array(stride(from: size, to: 200, by: size))
            #expect(Streams.read(bytes, cuts: cuts, FrameReader(codec)) == Outcome(messages: messages))
        }
    }

    // I6.4
    @Test("Every end but that between two frames is told, with what is missing", arguments: everyPrefix)
    func everyEnd(codec: LengthPrefixed) throws {
        let (_, bytes) = try stream(codec)
        let reference = PlainReference(codec)
        for end in 0...200 {
            let front = Array(bytes[..<end])
            #expect(Streams.read(front, cuts: [], FrameReader(codec)) == reference.outcome(of: front))
        }
    }

    // I6.1, I6.3, I6.4
    @Test(
        "20,000 valid streams that something has happened to are read as far as they are valid",
        arguments: 1...4)
    func mutations(seed: Int) {
        var streams = MutatedStreams(seed: UInt64(seed))
        streams.run(5_000)
        #expect(streams.report.complaints == [])
        #expect(streams.report.peakPercent <= 100)
        // The means work: both kinds were among them.
        #expect(streams.report.faulty > 1_000 && streams.report.faulty < 4_900)
        #expect(streams.report.messages > 5_000)
    }
}
