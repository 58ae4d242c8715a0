import Contexts
import Framing
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: gives each chunk to a thread of its own, so that the next one need not wait.
final class BrokenThreadPerChunk: StreamHandler {
    private let reader: BrokenSharedReader

    init(_ reader: BrokenSharedReader) { self.reader = reader }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        chunk.keep()
        _ = startThread("framing") {
            self.reader.received(chunk, on: connection)
            chunk.giveBack()
        }
    }
}

/// ⚠︎ Broken on purpose: looks at what is left of the last chunk, works on it, and puts the new rest down. Each step is
/// safe; another worker may come between them.
final class BrokenSharedReader: StreamHandler {
    private let heard: Heard
    private let rest = Guarded<[UInt8]>([])
    private let pause: @Sendable () -> Void

    init(_ heard: Heard, pause: @escaping @Sendable () -> Void) {
        self.heard = heard
        self.pause = pause
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        var bytes = rest.locked { $0 } + Array(chunk.contents)
        pause()
        while bytes.count >= 4 {
            let length = bytes.length
            if length > 8188 {
                heard.say("a length of \(readable(length)) is found in the middle of a message")
                return connection.close()
            }
            if bytes.count < 4 + length { break }
            heard.add(Array(bytes[4..<4 + length]))
            bytes.removeFirst(4 + length)
        }
        rest.locked { $0 = bytes }
    }
}

/// The first chunk ends within a message. While its worker is busy with it, another worker has the second chunk.
public enum FramingByTwoWorkers {
    private static let texts = ["one", "together", "three"]

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "framing-by-two-workers",
        title: "two workers frame one connection at once, and the second begins in the middle of a message",
        broken: { driver in
            // Both have looked at what is left before one of them puts something down.
            let both = Gate(count: 2)
            return try scenario(driver) { heard, _ in
                BrokenThreadPerChunk(
                    BrokenSharedReader(heard) {
                        both.open()
                        both.pass()
                    })
            }
        },
        fixed: { driver in
            try scenario(driver) { heard, arrived in
                FramedConnection(
                    LengthPrefixed.article,
                    handler: Collector(heard) { number in
                        // The other worker has the second chunk, and leaves it in the window.
                        guard number == 0 else { return }
                        if !eventually({ arrived.value >= 2 }) {
                            heard.say("the second chunk did not arrive")
                        }
                        if heard.messages.count != 0 { heard.say("somebody else delivered meanwhile") }
                    })
            }
        })

    private static func scenario(
        _ driver: DriverKind,
        _ handler: @escaping @Sendable (Heard, Counter) -> any StreamHandler
    ) throws -> Observation {
        let heard = Heard()
        let arrived = Counter()
        var options = StreamHub.Options.on(driver, workers: 2, reads: 2)
        var probe = StreamProbe()
        probe.arrived = { _ in arrived.add() }
        options.probe = probe
        let stream = texts.flatMap(frame)
        try play([Array(stream[..<13]), Array(stream[13...])], to: options) { handler(heard, arrived) }
        return Observation(
            happened: heard.shown != texts
                || heard.verdicts.contains { $0.contains("second") || $0.contains("else") },
            lines: ["sent: \(texts), in two chunks", "delivered: \(heard.shown)"]
                + heard.verdicts.filter { $0 != "ended in order" })
    }
}
