import Contexts
import Kernel
import Reordering
import ReorderingPitfalls
import Stage
import Timeline

/// Keeps what it receives, chunk by chunk, and marks those that come before an earlier one.
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
        let missing = chunks.locked { chunks in
            let missing = (0..<chunk.number.value).first { number in !chunks.contains { $0.number == number }
            }
            chunks.append((chunk.number.value, text(Array(chunk.contents))))
            return missing
        }
        Recorder.note(
            "read \(chunk.number) is processed" + (missing.map { " before read \($0) ⇄" } ?? ""),
            of: chunk.identity)
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
    let gate = Gate()
    let hub = try makeHub(options.driver, reads: max(3, options.number(reads) ?? 3)) {
        $0.ordersReads = isOrdered
        $0.probe = holding(1, until: 3, gate)
    }
    let pair = try Pair()
    let watcher = Watcher()
    Recorder.start()
    let connection = try hub.adopt(pair.server, handler: watcher)
    try pair.client.say(words.joined())
    let isThere = eventually { watcher.count == words.count }
    let recording = Recorder.stop()
    let early = connection.window.early
    let isClean = hub.stop()
    terminal.draw(recording)
    terminal.say()
    terminal.say("sent:      \(words.joined(separator: " "))")
    terminal.say("processed: \(watcher.marked.joined(separator: " "))")
    let isInOrder = watcher.marked == words
    if isOrdered {
        terminal.claim(
            "chunks that came before an earlier one, and waited for it: \(early)",
            holds: isThere && isClean && isInOrder && early > 0)
    } else {
        terminal.claim("chunks that two workers took are swapped", holds: isThere && !isInOrder)
    }
    if isOrdered == (options.value(numbers) != "without") {
        try options.save(
            recording, title: "Five chunks, two workers, \(isOrdered ? "with" : "without") numbers",
            description: isOrdered
                ? "Read 1 is held up by its worker; the reads behind it wait in the window until it is there."
                : "Read 1 is held up by its worker; the reads behind it are processed before it.")
    }
}
