import Framing
import FramingPitfalls
import Glibc
import Kernel
import Reordering
import Stage

/// What became of a part of a chunk.
struct Part: Sendable {
    enum Fate: Sendable { case whole, partial }

    /// The message that it belongs to, from 1 on.
    let message: Int
    /// Where it lies in the stream.
    let bytes: Range<Int>
    let fate: Fate
}

/// A handler that frames by itself and writes down what each chunk held: the figure is drawn from this.
final class Witness: StreamHandler, @unchecked Sendable {
    // In the handler's calls only; read when the connection is over.
    private(set) var chunks: [[Part]] = []
    private(set) var bytes: [UInt8] = []
    private(set) var messages: [String] = []
    let reader = FrameReader(LengthPrefixed.article)

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        var start = bytes.count
        bytes += chunk.contents
        var parts: [Part] = []
        var joined = reader.counters.joined
        try? reader.read(chunk.contents.bytes) { message in
            let isWhole = reader.counters.joined == joined
            joined = reader.counters.joined
            messages.append(message.printable)
            parts.append(
                Part(message: messages.count, bytes: start..<reader.offset, fate: isWhole ? .whole : .partial)
            )
            start = reader.offset
        }
        if start < bytes.count {
            parts.append(Part(message: messages.count + 1, bytes: start..<bytes.count, fate: .partial))
        }
        chunks.append(parts)
    }
}

/// The counterpart of the article's first figure, from a run.
struct Figure {
    let witness: Witness
    private static let header = 4

    /// Sends messages through a connection whose chunks are this small.
    init(_ messages: [String], chunk: Int, _ driver: DriverKind) throws {
        let witness = Witness()
        self.witness = witness
        let hub = try StreamHub(.on(driver, workers: 2, reads: 2, chunk: chunk))
        let address = try hub.listen { _ in witness }
        let client = try Client(to: address)
        try client.send(try Streams.encode(messages.map { Array($0.utf8) }, LengthPrefixed.article))
        try client.socket.shutDownSending()
        _ = try client.receive()
        guard eventually({ hub.counters.alive == 0 }), hub.stop() else {
            throw SystemError(ETIMEDOUT, attempted: "end a connection")
        }
    }

    /// Bytes of the stream for people: a header's in digits, the others as letters.
    private func cell(_ place: Int, _ part: Part) -> String {
        let isHeader = place < start(of: part.message) + Figure.header
        let byte = witness.bytes[place]
        return isHeader ? (byte < 10 ? "0\(byte)" : "\(byte)") : String(UnicodeScalar(byte))
    }

    private func start(of message: Int) -> Int {
        witness.messages.prefix(message - 1).reduce(0) { $0 + Figure.header + $1.utf8.count }
    }

    func draw(on terminal: Terminal) {
        for (number, parts) in witness.chunks.enumerated() {
            var bytes = ""
            var marks = ""
            for part in parts {
                for place in part.bytes {
                    let cell = cell(place, part)
                    bytes += cell.count == 1 ? " \(cell) " : cell + " "
                }
                marks += mark(part)
            }
            terminal.say("chunk \(number + 1)  \(bytes.dropLast())")
            terminal.say("         \(marks.dropLast())")
        }
        terminal.say("━ lies whole in its chunk: lent where it lies   ╌ in parts: copied, then lent")
    }

    private func mark(_ part: Part) -> String {
        let line = part.fate == .whole ? "━" : "╌"
        let width = 3 * part.bytes.count - 1
        let name = width >= 3 ? " \(part.message) " : width >= 1 ? "\(part.message)" : ""
        let left = (width - name.count) / 2
        let right = width - name.count - left
        return String(repeating: line, count: left) + name + String(repeating: line, count: right) + " "
    }

    // MARK: The picture

    /// What a part is of its message.
    private func name(_ part: Part) -> String {
        if part.fate == .whole { return "message \(part.message)" }
        if part.bytes.lowerBound == start(of: part.message) { return "message \(part.message) begins" }
        let isLast = part.bytes.upperBound == start(of: part.message + 1)
        return "message \(part.message) \(isLast ? "ends" : "goes on")"
    }

    func svg() -> String {
        let cell = 34
        let left = 96
        let most = witness.chunks.map { $0.reduce(0) { $0 + $1.bytes.count } }.max() ?? 1
        let width = left + most * cell + 44
        var y = 96
        var body = ""
        func text(_ x: Int, _ y: Int, _ style: String, _ words: String) {
            body += "<text class=\"\(style)\" x=\"\(x)\" y=\"\(y)\">\(escaped(words))</text>\n"
        }
        text(24, 36, "title", "Messages in chunks, as they came")
        body += "<rect class=\"whole\" x=\"\(left)\" y=\"54\" width=\"14\" height=\"14\" rx=\"2\"/>\n"
        text(left + 22, 66, "small", "whole in its chunk: lent where it lies")
        body += "<rect class=\"cut\" x=\"\(left + 280)\" y=\"54\" width=\"14\" height=\"14\" rx=\"2\"/>\n"
        text(left + 302, 66, "small", "in parts: copied together, then lent")
        text(left + 560, 66, "small", "numbers: bytes of a length")
        for (number, parts) in witness.chunks.enumerated() {
            text(24, y + 24, "name", "chunk \(number + 1)")
            var x = left
            for part in parts {
                let style = part.fate == .whole ? "whole" : "cut"
                let size = "width=\"\(part.bytes.count * cell - 2)\" height=\"36\" rx=\"5\""
                body += "<rect class=\"\(style)\" x=\"\(x)\" y=\"\(y)\" \(size)/>\n"
                for place in part.bytes {
                    let shown = self.cell(place, part)
                    let isHeader = place < start(of: part.message) + Figure.header
                    let style = isHeader ? "header" : "inside"
                    if shown != " " { text(x + cell / 2 - 1, y + 23, style, shown) }
                    x += cell
                }
                text(x - part.bytes.count * cell, y + 52, "small", name(part))
            }
            y += 70
        }
        let box = "width=\"\(width)\" height=\"\(y)\""
        let cuts = witness.reader.counters
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(width) \(y)" \(box) role="img" \
            aria-labelledby="title description">
            <title id="title">Messages in chunks, as they came</title>
            <desc id="description">\(cuts.frames) messages came in \(witness.chunks.count) chunks. \
            \(cuts.frames - cuts.joined) lay whole in one chunk and were lent where they lay; \(cuts.joined) \
            were cut, some within their length, and were put together.</desc>
            <style>
            text{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:15px;fill:#24292f}
            .title{font-family:ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-size:18px;font-weight:600}
            .small,.name{font-family:ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-size:13px}
            .small{fill:#57606a}.inside,.header{fill:#10241c;text-anchor:middle}.header{font-weight:700}
            .page{fill:#ffffff}.whole{fill:#d5dde6}.cut{fill:#9fb0c3}
            @media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9da7b3}
            .inside,.header{fill:#10241c}.page{fill:#0d1117}}
            </style>
            <rect class="page" \(box) rx="8"/>
            \(body)</svg>

            """
    }

    private func escaped(_ words: String) -> String {
        words.map { ["&": "&amp;", "<": "&lt;", ">": "&gt;"][$0] ?? String($0) }.joined()
    }
}
