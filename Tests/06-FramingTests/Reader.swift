import Framing
import FramingPitfalls
import Testing

@Suite("Chapter 06: the reader")
struct Chapter06FramingReader {
    private let codec = LengthPrefixed(.two, .bigEndian, maximumLength: 1000)

    // I6.2
    @Test("A frame that lies whole in one chunk is lent where it lies; only a cut one is copied")
    func noCopy() throws {
        let stream = try Streams.encode([[1, 2, 3], [], [4, 5], [6, 7, 8, 9]], codec)
        let reader = FrameReader(codec)
        // The third frame is cut behind its first byte.
        try stream.withUnsafeBytes { memory in
            var places: [Int] = []
            func read(_ part: Range<Int>) throws {
                try reader.read(UnsafeRawBufferPointer(rebasing: memory[part]).bytes) { message in
                    message.withUnsafeBytes { bytes in
                        let isInside = bytes.baseAddress.map {
                            $0 >= memory.baseAddress! && $0 < memory.baseAddress! + memory.count
                        }
                        places.append(isInside == true ? bytes.baseAddress! - memory.baseAddress! : -1)
                    }
                }
            }
            try read(0..<8)
            #expect(places == [2, 7] && reader.peakCapacity == 64 && reader.heldBytes == 1)
            try read(8..<stream.count)
            #expect(places == [2, 7, -1, 13])
        }
        #expect(reader.counters.frames == 4 && reader.counters.joined == 1)
        #expect(reader.counters.copiedBytes == 4, "the cut frame's, and no others")
        #expect(reader.offset == stream.count && reader.heldBytes == 0)
        try reader.endOfStream()
    }

    // I6.2
    @Test("Frames that all lie whole in their chunks need no memory of the reader's")
    func noMemory() throws {
        let stream = try Streams.encode((0..<20).map { [UInt8](repeating: 1, count: $0) }, codec)
        let reader = FrameReader(codec)
        for _ in 0..<100 { try reader.read(stream.span.bytes) { _ in } }
        #expect(reader.counters.frames == 2000 && reader.counters.copiedBytes == 0)
        #expect(reader.peakCapacity == 0)
    }

    // I6.3
    @Test("Memory follows the bytes that have come, not those that are announced")
    func announced() throws {
        let codec = LengthPrefixed(.four, maximumLength: 1 << 30)
        let reader = FrameReader(codec)
        let start: [UInt8] = [0x3F, 0xFF, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 96)
        try reader.read(start.span.bytes) { _ in }
        #expect(reader.heldBytes == 100 && reader.peakCapacity <= 200)
    }

    // I6.4
    @Test("After an error nothing is delivered any more, and the error stays the same")
    func failureStays() throws {
        let reader = FrameReader(codec)
        let good = try Streams.encode([[1], [2]], codec)
        let bad = good + [0xFF, 0xFF] + good
        let expected = FrameError(.lengthTooLarge(65_535, maximum: 1000), at: 6)
        var count = 0
        for _ in 0..<3 {
            #expect(throws: expected) { try reader.read(bad.span.bytes) { _ in count += 1 } }
            #expect(throws: expected) { try reader.endOfStream() }
        }
        #expect(count == 2 && reader.heldBytes == 0 && reader.counters.frames == 2)
    }

    @Test("A handler that has had enough gets no more")
    func stops() throws {
        let reader = FrameReader(codec)
        let stream = try Streams.encode([[1], [2], [3]], codec)
        var seen = 0
        for _ in 0..<2 {
            try reader.read(stream.span.bytes) { _ in
                seen += 1
                if seen == 2 { reader.stop() }
            }
        }
        #expect(seen == 2)
        try reader.endOfStream()
    }

    @Test("Raw bytes pass through without framing, as they come, at every pair of cuts")
    func passThrough() throws {
        // A message says how many raw bytes follow it.
        var stream: [UInt8] = []
        var raw: [UInt8] = []
        for count in [0, 5, 1, 0, 9] {
            stream += try Streams.encode([[UInt8(count)]], codec)
            let bytes = (0..<count).map { _ in UInt8(255) }
            raw += bytes
            stream += bytes
        }
        for first in 0...stream.count {
            for second in first...stream.count {
                let reader = FrameReader(codec)
                var log: [Int] = []
                var passed = 0
                for part in [0..<first, first..<second, second..<stream.count] {
                    let chunk = Array(stream[part])
                    try reader.read(
                        chunk.span.bytes,
                        raw: { range in
                            passed += range.count
                            #expect(!range.isEmpty && chunk[range].allSatisfy { $0 == 255 })
                        },
                        message: { message in
                            let count = Int(message.unsafeLoad(as: UInt8.self))
                            log.append(count)
                            reader.passThrough(count)
                        })
                }
                #expect(log == [0, 5, 1, 0, 9] && passed == raw.count)
                #expect(reader.counters.rawBytes == raw.count && reader.offset == stream.count)
                try reader.endOfStream()
            }
        }
    }

    // I6.4
    @Test("The stream's end within raw bytes is not in order")
    func endInsideRaw() throws {
        let reader = FrameReader(codec)
        reader.passThrough(10)
        let bytes: [UInt8] = [1, 2, 3]
        try reader.read(bytes.span.bytes) { _ in }
        #expect(throws: FrameError(.endedInside(have: 0, of: 7), at: 3)) { try reader.endOfStream() }
    }
}
