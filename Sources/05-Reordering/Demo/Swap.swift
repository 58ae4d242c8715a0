import Contexts
import Kernel
import Reordering
import ReorderingPitfalls
import Stage
import Timeline

/// Keeps what is processed, chunk by chunk, and marks those that come before an earlier one.
private final class Watcher: StreamHandler {
    private let chunks = Guarded<[(number: UInt32, text: String)]>([])

    /// The chunks in the order of the calls; `⇄` before those that came too early or, after them, too late.
    var marked: [String] {
        chunks.locked { chunks in
            chunks.indices.map { (chunks[$0].number == $0 ? "" : "⇄") + chunks[$0].text }
        }
    }

    var count: Int { chunks.locked { $0.count } }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        process(chunk.number.value, Array(chunk.contents))
    }

    func process(_ number: UInt32, _ bytes: [UInt8]) {
        let missing = chunks.locked { chunks in
            let missing = (0..<number).first { number in !chunks.contains { $0.number == number } }
            chunks.append((number, text(bytes)))
            return missing
        }
        Recorder.note("read \(number) is processed" + (missing.map { " before read \($0) ⇄" } ?? ""))
        // What is processed takes its time.
        let end = monotonicNanoseconds() + 15_000
        while monotonicNanoseconds() < end {}
    }
}

/// Five chunks, two workers, of whom one is held up with the second chunk: drawn from the run.
func showSwap(isOrdered: Bool, _ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading(
        isOrdered ? "With numbers: a chunk waits for its turn" : "Without numbers: who comes first goes first"
    )
    let words = ["one,", "two,", "six,", "ten,", "end."]
    let pending = max(3, options.number(reads) ?? 3)
    let (gate, watcher) = (Gate(), Watcher())
    let pair = try Pair()
    Recorder.start()
    let (early, stop): (() -> Int, () -> Bool)
    if isOrdered {
        let hub = try makeHub(options.driver, reads: pending) { $0.probe = holding(1, until: 3, gate) }
        let connection = try hub.adopt(pair.server, handler: watcher)
        (early, stop) = ({ connection.window.early }, { hub.stop() })
    } else {
        let stream = try BrokenStream(options.driver, pair.server, reads: pending) { number in
            if number == 1 { gate.pass() }
            if number == 3 { gate.open() }
        } process: { number, bytes in
            watcher.process(UInt32(number), bytes)
        }
        early = { 0 }
        stop = {
            stream.stop()
            return true
        }
    }
    try pair.client.say(words.joined())
    let isThere = eventually { watcher.count == words.count }
    let recording = Recorder.stop()
    let waited = early()
    let isClean = stop()
    terminal.draw(recording)
    terminal.say()
    terminal.say("sent:      \(words.joined(separator: " "))")
    terminal.say("processed: \(watcher.marked.joined(separator: " "))")
    let isInOrder = watcher.marked == words
    if isOrdered {
        terminal.claim(
            "chunks that came before an earlier one, and waited for it: \(waited)",
            holds: isThere && isClean && isInOrder && waited > 0)
    } else {
        terminal.claim("chunks that two workers took are swapped", holds: isThere && isClean && !isInOrder)
    }
    if isOrdered == (options.value(numbers) != "without") {
        try options.save(
            recording, title: "Five chunks, two workers, \(isOrdered ? "with" : "without") numbers",
            description: isOrdered
                ? "Read 1 is held up by its worker; the reads behind it wait in the window until it is there."
                : "Read 1 is held up by its worker; the reads behind it are processed before it.")
    }
}
