import Framing
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: it collects the rest of a message that is cut, but takes it for granted that a header comes
/// whole. It reads four bytes of its buffer, received or not.
public struct BrokenHeaderFraming {
    // What a buffer holds before bytes come is whatever somebody has left there.
    private var buffer = [UInt8](repeating: 0x20, count: 4096)
    private var start = 0
    private var end = 0
    /// A length that no message has. The stream is lost from there on.
    public private(set) var strangeLength: Int?

    /// Nothing received yet.
    public init() {}

    /// Takes a chunk, and returns what it takes for messages.
    public mutating func take(_ bytes: [UInt8]) -> [[UInt8]] {
        if start == end { (start, end) = (0, 0) }
        buffer.replaceSubrange(end..<end + bytes.count, with: bytes)
        end += bytes.count
        var messages: [[UInt8]] = []
        while start < end, strangeLength == nil {
            let length = Array(buffer[start...]).length
            if length > buffer.count - 4 {
                strangeLength = length
            } else if end - start < 4 + length {
                break
            } else {
                messages.append(Array(buffer[start + 4..<start + 4 + length]))
                start += 4 + length
            }
        }
        return messages
    }
}

/// ⚠︎ Broken on purpose: the same at a connection.
final class BrokenHeaderReader: StreamHandler, @unchecked Sendable {
    private let heard: Heard
    // In the handler's calls only.
    private var framing = BrokenHeaderFraming()

    init(_ heard: Heard) { self.heard = heard }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        for message in framing.take(Array(chunk.contents)) { heard.add(message) }
        guard let length = framing.strangeLength else { return }
        heard.say("\(chunk.contents.count) bytes of a header are taken for a length of \(readable(length))")
        connection.close()
    }
}

/// A length is cut like everything else.
public enum HeaderSplit {
    private static let texts = ["the header", "is cut", "as well"]

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "header-split",
        title: "the length itself is cut, and bytes that have not come are taken for the rest of it",
        broken: { driver in try scenario(driver, sizes: [2]) { BrokenHeaderReader($0) } },
        fixed: { driver in
            try scenario(driver, sizes: [2, 1, 3]) {
                FramedConnection(LengthPrefixed.article, handler: Collector($0))
            }
        })

    private static func scenario(
        _ driver: DriverKind, sizes: [Int], _ handler: @escaping @Sendable (Heard) -> any StreamHandler
    ) throws -> Observation {
        var lines: [String] = []
        var happened = false
        for size in sizes {
            let heard = Heard()
            // A chunk is as small as this; all bytes are sent at once.
            try play([texts.flatMap(frame)], to: .on(driver, chunk: size)) { handler(heard) }
            happened = happened || heard.shown != texts
            lines.append("chunks of \(size): \(heard.shown)")
            lines += heard.verdicts.filter { $0.contains("header") }
        }
        return Observation(happened: happened, lines: lines)
    }
}
