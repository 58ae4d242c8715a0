import Framing
import Testing

@Suite("Chapter 06: numbers, texts and their bounds")
struct Chapter06FramingFields {
    @Test("Integers of every width are read and written in both byte orders")
    func integers() throws {
        var buffer = SplitBuffer(limit: 64)
        try buffer.append(UInt8(0x01), .bigEndian)
        try buffer.append(UInt16(0x0203), .bigEndian)
        try buffer.append(UInt16(0x0203), .littleEndian)
        try buffer.append(UInt32(0x0405_0607), .bigEndian)
        try buffer.append(Int64(-2), .littleEndian)
        let bytes = contents(buffer)
        #expect(bytes == [1, 2, 3, 3, 2, 4, 5, 6, 7, 0xFE, 255, 255, 255, 255, 255, 255, 255])
        let span = bytes.span.bytes
        #expect(try span.integer(UInt16.self, at: 1, .bigEndian) == 0x0203)
        #expect(try span.integer(UInt16.self, at: 3, .littleEndian) == 0x0203)
        #expect(try span.integer(UInt32.self, at: 5, .bigEndian) == 0x0405_0607)
        #expect(try span.integer(UInt32.self, at: 5, .littleEndian) == 0x0706_0504)
        #expect(try span.integer(Int64.self, at: 9, .littleEndian) == -2)
    }

    // I6.4
    @Test(
        "A field that is not wholly there is an error with its offset",
        arguments: [-1, 5, 8, 9, Int.max, Int.min])
    func bounds(offset: Int) {
        let bytes = [UInt8](repeating: 7, count: 8)
        let error = #expect(throws: FrameError.self) {
            _ = try bytes.span.bytes.integer(UInt32.self, at: offset, .bigEndian)
        }
        #expect(error?.offset == offset)
    }

    @Test("A text is as long as it is said to be, and is refused when it is none")
    func text() throws {
        let bytes = Array("name: Grüße\0rest".utf8)
        #expect(try bytes.span.bytes.text(at: 6, bytes: 7) == "Grüße")
        #expect(throws: FrameError(.notUTF8, at: 6)) { _ = try bytes.span.bytes.text(at: 6, bytes: 3) }
        #expect(throws: FrameError(.outOfBounds(wanted: 99, available: 11), at: 7)) {
            _ = try bytes.span.bytes.text(at: 7, bytes: 99)
        }
        #expect(throws: FrameError.self) { _ = try bytes.span.bytes.text(at: 0, bytes: -1) }
        #expect(throws: FrameError.self) { _ = try bytes.span.bytes.text(at: .max, bytes: .max) }
    }

    // I6.6
    @Test("Strange bytes are shown, never obeyed")
    func printable() {
        func shown(_ bytes: [UInt8]) -> String { bytes.span.bytes.printable }
        #expect(shown(Array("Grüße".utf8)) == "Grüße")
        #expect(shown([]) == "")
        #expect(shown([0x41, 0, 0x42]) == "A\\x00B")
        #expect(shown([0x1B, 0x5B, 0x32, 0x4A]) == "\\x1B[2J")
        #expect(shown([0xFF, 0x41, 0xC3]) == "\\xFFA\\xC3")
        #expect(shown([0x5C]) == "\\x5C", "a backslash of the sender's is not taken for one of ours")
        #expect(shown([0xE2, 0x80, 0xAE, 0x41]) == "\\xE2\\x80\\xAEA", "text that runs backwards")
        for byte in UInt8.min...UInt8.max { #expect(!shown([byte, 0x0A]).contains("\n")) }
    }
}

/// What is in a buffer.
func contents(_ buffer: borrowing SplitBuffer) -> [UInt8] {
    buffer.withBytes { bytes in bytes.withUnsafeBytes { Array($0) } }
}
