import Framing
import FramingPitfalls
import Kernel
import Stage

/// The messages of the story.
let texts = [
    "one", "second", "", "this one is longer than any chunk is, so it comes in parts", "five", "the last",
]

/// A stream, cut at every place there is.
struct Cuts {
    private let messages = texts.map { Array($0.utf8) }
    private let stream: [UInt8]

    init() throws { stream = try Streams.encode(texts.map { Array($0.utf8) }, LengthPrefixed.article) }

    /// A character for each place where the stream is cut once, and how many of them were right.
    private func strip(_ read: ([[UInt8]]) -> [[UInt8]]) -> (String, Int) {
        var strip = ""
        var right = 0
        for place in 1..<stream.count {
            let isRight = read([Array(stream[..<place]), Array(stream[place...])]) == messages
            strip += isRight ? "·" : "x"
            right += isRight ? 1 : 0
        }
        return (strip, right)
    }

    func show(on terminal: Terminal) {
        terminal.heading("The same stream, cut once, at each of its \(stream.count - 1) places")
        terminal.say("x: not the messages that were sent")
        terminal.say()
        let naive = strip { $0.flatMap { BrokenChunkFraming().take($0) } }
        let hopeful = strip { chunks in
            var framing = BrokenHeaderFraming()
            return chunks.flatMap { framing.take($0) }
        }
        let reader = strip { chunks in
            Streams.read(chunks[0] + chunks[1], cuts: [chunks[0].count], FrameReader(LengthPrefixed.article))
                .messages
        }
        for (name, (strip, _)) in [
            ("broken: a chunk is a message", naive), ("broken: headers come whole", hopeful),
            ("right", reader),
        ] {
            terminal.say(name)
            var rest = strip[...]
            while !rest.isEmpty {
                terminal.say("  " + rest.prefix(terminal.columns - 2))
                rest = rest.dropFirst(terminal.columns - 2)
            }
        }
        terminal.say()
        let places = stream.count - 1
        terminal.claim("who takes chunks for messages is never right", holds: naive.1 == 0)
        terminal.claim(
            "who takes headers for granted is wrong wherever a cut goes through one",
            holds: hopeful.1 == places - 3 * texts.count)
        terminal.claim("the reader is right at all \(places) places", holds: reader.1 == places)
    }

    func showPairs(on terminal: Terminal) {
        terminal.heading("Cut twice, at every pair of places")
        var tries = 0
        var right = 0
        var copied = 0
        var peak = 0
        let start = monotonicNanoseconds()
        for first in 0...stream.count {
            for second in first...stream.count {
                let reader = FrameReader(LengthPrefixed.article)
                let outcome = Streams.read(stream, cuts: [first, second], reader)
                tries += 1
                right += outcome == Outcome(messages: messages) ? 1 : 0
                copied += reader.counters.copiedBytes
                peak = max(peak, reader.peakCapacity)
            }
        }
        let time = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
        let share = 100 * copied / (tries * stream.count)
        terminal.say(
            "\(readable(tries)) streams of \(stream.count) bytes in \(readable(time)); "
                + "\(share) % of their bytes were copied, the largest buffer had \(peak) bytes")
        terminal.claim("\(readable(right)) times the same messages", holds: right == tries)
    }
}
