import Framing
import FramingPitfalls
import Testing

let everyPrefix = LengthPrefixed.Width.allCases.flatMap { width in
    ByteOrder.allCases.flatMap { order in
        [false, true].map { LengthPrefixed(width, order, countsHeader: $0, maximumLength: 300) }
    }
}

@Suite("Chapter 06: codecs")
struct Chapter06FramingCodecs {
    @Test("A frame is written as the description says")
    func written() throws {
        let message = Array("hello".utf8)
        func frame(_ codec: LengthPrefixed) throws -> [UInt8] { try Streams.encode([message], codec) }
        #expect(try frame(LengthPrefixed(.two, .bigEndian)) == [0, 5] + message)
        #expect(try frame(LengthPrefixed(.two, .littleEndian, countsHeader: true)) == [7, 0] + message)
        #expect(try frame(LengthPrefixed(.four, .bigEndian, countsHeader: true)) == [0, 0, 0, 9] + message)
        #expect(try frame(.article) == [5, 0, 0, 0] + message)
        #expect(try Streams.encode([message], Lines()) == message + [10])
        #expect(try Streams.encode([message], Lines(.crlf)) == message + [13, 10])
    }

    @Test("Messages of every length up to the limit come back, and none beyond it", arguments: everyPrefix)
    func lengths(codec: LengthPrefixed) throws {
        let messages = (0...300).map { [UInt8](repeating: UInt8($0 & 255), count: $0) }
        let stream = try Streams.encode(messages, codec)
        #expect(Streams.read(stream, cuts: [], FrameReader(codec)) == Outcome(messages: messages))
        #expect(throws: FrameError(.lengthTooLarge(301, maximum: 300), at: 0)) {
            _ = try Streams.encode([[UInt8](repeating: 0, count: 301)], codec)
        }
    }

    @Test("A limit beyond what the header can tell becomes what it can tell")
    func tellable() {
        #expect(LengthPrefixed(.two, maximumLength: 1 << 20).maximumLength == 65_535)
        #expect(LengthPrefixed(.two, countsHeader: true, maximumLength: 1 << 20).maximumLength == 65_533)
        #expect(LengthPrefixed(.four, maximumLength: .max).maximumLength == 4_294_967_295)
        #expect(LengthPrefixed(.four, countsHeader: true, maximumLength: .max).maximumLength == 4_294_967_291)
    }

    @Test("Lines end with LF or CR and LF, and a line that is just full may")
    func lines() {
        func read(_ text: String, _ maximum: Int = 5) -> Outcome {
            let stream = Array(text.utf8)
            // In one piece and byte by byte.
            let whole = Streams.read(stream, cuts: [], FrameReader(Lines(maximumLength: maximum)))
            let cut = Streams.read(
                stream, cuts: Array(stream.indices.dropFirst()), FrameReader(Lines(maximumLength: maximum)))
            #expect(whole == cut)
            return whole
        }
        func messages(_ texts: String...) -> Outcome { Outcome(messages: texts.map { Array($0.utf8) }) }
        #expect(read("") == messages())
        #expect(read("\n") == messages(""))
        #expect(read("\r\n\n") == messages("", ""))
        #expect(read("one\ntwo\r\n") == messages("one", "two"))
        #expect(read("a\rb\n") == messages("a\rb"))
        #expect(read("12345\n") == messages("12345"))
        #expect(read("12345\r\n") == messages("12345"))
        #expect(read("1234\r\r\n") == messages("1234"))
        #expect(read("a\n123456\n").error == FrameError(.lineTooLong(maximum: 5), at: 7))
        #expect(read("a\n12345\rx").error == FrameError(.lineTooLong(maximum: 5), at: 7))
        #expect(read("a\n12345\r").error == FrameError(.endedInside(have: 6, of: nil), at: 8))
        #expect(read("a\nbc").error == FrameError(.endedInside(have: 2, of: nil), at: 4))
        #expect(read("\n\n", 0) == messages("", ""))
        #expect(read("x", 0).error == FrameError(.lineTooLong(maximum: 0), at: 0))
    }

    @Test("A line that would be read as something else is not written")
    func lineEndInside() {
        for (text, place) in [("a\nb", 1), ("\n", 0), ("a\r", 1)] {
            #expect(throws: FrameError(.lineEndInside, at: place)) {
                _ = try Streams.encode([Array(text.utf8)], Lines())
            }
        }
    }

    @Test("A frame that does not fit into the buffer leaves nothing of itself there")
    func wholeOrNothing() throws {
        let message = Array("hello".utf8)
        func left<Codec: FrameCodec>(_ codec: Codec, _ limit: Int) -> (Int, Bool) {
            var buffer = SplitBuffer(limit: limit)
            var isRefused = false
            do throws(FrameError) {
                try codec.append(message.span.bytes, to: &buffer)
            } catch {
                isRefused = error.fault == .bufferFull(limit: limit)
            }
            return (buffer.count, isRefused)
        }
        for limit in 0..<9 { #expect(left(LengthPrefixed.article, limit) == (0, true)) }
        #expect(left(LengthPrefixed.article, 9) == (9, false))
        for limit in 0..<7 { #expect(left(Lines(.crlf), limit) == (0, true)) }
        #expect(left(Lines(.crlf), 7) == (7, false))
    }
}
