import Framing
import FramingPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 06: what does not go wrong any more", .serialized)
struct Chapter06FramingFixes {
    // I6.1
    @Test(
        "chunk-is-not-message: the same four messages from the same three chunks",
        arguments: DriverKind.permitted)
    func chunkIsNotMessage(driver: DriverKind) async throws {
        try await holds(ChunkIsNotMessage.pitfall, driver)
    }

    // I6.1
    @Test("header-split: chunks of 1, 2 and 3 bytes give whole messages", arguments: DriverKind.permitted)
    func headerSplit(driver: DriverKind) async throws { try await holds(HeaderSplit.pitfall, driver) }

    // I6.3, I6.4
    @Test(
        "length-lies: every lie is refused at its offset, nothing is allocated, what came before is delivered",
        arguments: DriverKind.permitted)
    func lengthLies(driver: DriverKind) async throws { try await holds(LengthLies.pitfall, driver) }

    // I6.3
    @Test("length-lies: the limit is exact, and so is the least, for every header", arguments: everyPrefix)
    func exactLimits(codec: LengthPrefixed) throws {
        let header = codec.width.rawValue
        for announced in [0, 1, header - 1, header, 300, 301, 300 + header, 301 + header, 65_535] {
            var buffer = SplitBuffer(limit: 8)
            if header == 2 {
                try buffer.append(UInt16(announced), codec.order)
            } else {
                try buffer.append(UInt32(announced), codec.order)
            }
            let length = announced - (codec.countsHeader ? header : 0)
            let isHonest = (0...300).contains(length)
            let stream = contents(buffer) + [UInt8](repeating: 1, count: max(0, min(length, 300)))
            // Whole, and byte by byte: the length itself is cut, too.
            for cuts in [[], Array(stream.indices.dropFirst())] {
                let reader = FrameReader(codec)
                let outcome = Streams.read(stream, cuts: cuts, reader)
                #expect((outcome.error == nil) == isHonest && outcome.messages.count == (isHonest ? 1 : 0))
                #expect(isHonest || outcome.error?.offset == 0)
                #expect(isHonest || reader.peakCapacity <= 64, "a header in parts, and no more")
            }
        }
    }

    // I6.4
    @Test(
        "eof-inside-frame: the stump is an error of its own, with its offset and what is missing",
        arguments: DriverKind.permitted)
    func eofInsideFrame(driver: DriverKind) async throws { try await holds(EOFInsideFrame.pitfall, driver) }

    // I6.5
    @Test(
        "framing-by-two-workers: the second chunk waits until the first one's messages are through",
        arguments: DriverKind.permitted)
    func framingByTwoWorkers(driver: DriverKind) async throws {
        try await holds(FramingByTwoWorkers.pitfall, driver)
    }

    // I6.6
    @Test(
        "text-without-terminator: as many bytes are shown as came, and strange ones by their numbers",
        arguments: DriverKind.permitted)
    func textWithoutTerminator(driver: DriverKind) async throws {
        try await holds(TextWithoutTerminator.pitfall, driver)
    }
}
