import FileTransfer
import FileTransferPitfalls
import Framing
import Testing

@Suite("Chapter 08: sums, names and messages")
struct Chapter08FileTransferValues {
    @Test(
        "the checksum is XXH64",
        arguments: [
            ("", 0xEF46_DB37_51D8_E999), ("a", 0xD24E_C4F1_A98C_6E5B), ("as", 0x1C33_0FB2_D66B_E179),
            ("abc", 0x44BC_2CF5_AD77_0999),
            ("Nobody inspects the spammish repetition", 0xFBCE_A83C_8A37_8BF1),
            ("The quick brown fox jumps over the lazy dog", 0x0B24_2D36_1FDA_71BC),
        ] as [(String, UInt64)])
    func vectors(text: String, sum: UInt64) {
        #expect(Array(text.utf8).sum == sum)
    }

    @Test("the checksum is the same in whatever pieces the bytes come")
    func pieces() {
        let bytes = ScratchFolder.pattern(10_007)
        for step in [1, 2, 7, 31, 32, 33, 64, 1_000] {
            var sum = Checksum()
            var position = 0
            while position < bytes.count {
                let end = min(bytes.count, position + step)
                Array(bytes[position..<end]).withUnsafeBytes { sum.add($0) }
                position = end
            }
            #expect(sum.value == bytes.sum, "in pieces of \(step)")
        }
    }

    @Test("one byte changed, lost, added or swapped is another checksum")
    func accidents() {
        let bytes = ScratchFolder.pattern(1_000)
        var seen: Set<UInt64> = [bytes.sum, Array(bytes.dropLast()).sum, (bytes + [0]).sum]
        for index in 0..<bytes.count {
            var other = bytes
            other[index] ^= 1
            seen.insert(other.sum)
        }
        var swapped = bytes
        swapped.swapAt(3, 500)
        seen.insert(swapped.sum)
        #expect(seen.count == 3 + 1_000 + 1)
    }

    // I8.5
    @Test("a name is one step of a path and nothing else")
    func names() {
        for name in PathEscape.badNames { #expect(SafeName(name) == nil, "\(name)") }
        for name in ["a", "...", ".profile", "-rf", "a b", "ü", String(repeating: "n", count: 255)] {
            #expect(SafeName(name)?.description == name)
        }
        #expect(SafeName(ofPath: "/tmp/x/a.txt")?.description == "a.txt")
        #expect(SafeName(ofPath: "a.txt")?.description == "a.txt")
        #expect(SafeName(ofPath: "/tmp/x/") == nil)
        #expect(SafeName(ofPath: "/tmp/..") == nil)
    }

    @Test("every message comes out as it went in, and no part of one is one")
    func messages() throws {
        for kind in TransferMessage.Kind.allCases {
            let message = TransferMessage(
                kind, 0x0102_0304, count: 0xFFFF_FFFE, value: 0x0102_0304_0506_0708, text: "name".utf8)
            let frame = try message.frame()
            #expect(Array(frame[..<4]) == [0, 0, 0, 21])
            let body = Array(frame[4...])
            #expect(try TransferMessage(body.span.bytes) == message)
            for count in 0..<17 {
                let part = Array(body[..<count])
                #expect(throws: FrameError.self) { try TransferMessage(part.span.bytes) }
            }
        }
        let nothing = [UInt8](repeating: 0, count: 17)
        #expect(throws: FrameError.self) { try TransferMessage(nothing.span.bytes) }
        #expect(throws: FrameError.self) {
            try TransferMessage(
                .ask, text: [UInt8](repeating: 0, count: TransferMessage.codec.maximumLength - 16)
            )
            .frame()
        }
    }

    // I8.6
    @Test("every reason crosses the wire as itself; an unknown one is a refusal all the same")
    func reasons() {
        for failure in TransferFailure.allCases { #expect(TransferFailure(code: failure.code) == failure) }
        #expect(Set(TransferFailure.allCases.map(\.rawValue)).count == TransferFailure.allCases.count)
        #expect(TransferFailure(code: 9_999) == .declined)
        #expect(TransferFailure(code: .max) == .declined)
    }
}
