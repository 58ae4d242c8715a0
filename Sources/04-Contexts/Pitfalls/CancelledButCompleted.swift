import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: whoever has cancelled pays no more attention to what comes.
struct BrokenReader {
    var hasCancelled = false
    private(set) var heard = ""

    mutating func handle(_ packet: Packet) {
        guard !hasCancelled, let request = packet.operation as? Request else { return }
        heard += request.text(packet.bytes)
    }
}

/// The cancel lost the race, and the bytes that did arrive are thrown away.
public enum CancelledButCompleted {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "cancelled-but-completed",
        title: "the cancel came too late, and the bytes that had arrived are thrown away",
        broken: { driver in
            var reader = BrokenReader()
            return try scenario(driver) { packet in
                reader.hasCancelled = true
                reader.handle(packet)
                return reader.heard
            }
        },
        fixed: { driver in
            // Whoever asks the system is mostly told of both at once, and takes one. If not, once more.
            for _ in 1...50 {
                let stand = try Stand(driver)
                let pairs = try Pair.several(2)
                let connections = try pairs.map { try stand.table.admit($0.server) }
                for pair in pairs { try pair.client.say("hello") }
                let first = try stand.port.next()
                let late = first.key == connections[0].key ? 1 : 0
                let isFound = connections[late].cancel()
                stand.table.handle(first, first.error)
                guard !isFound else {
                    _ = stand.finish()
                    continue
                }
                // The packet says what has become of the operation, not what was asked for: the bytes are answered.
                _ = stand.turns { pairs[late].client.unread == 5 || stand.table.counters.announced > 0 }
                let heard = try pairs[late].client.hear(5, within: .zero)
                return Observation(
                    happened: heard != "hello" || !stand.finish(),
                    lines: [
                        "5 bytes had come; a cancel found nothing to cancel",
                        "the connection went on, and answered: \"\(heard)\"",
                    ])
            }
            throw SystemError(EAGAIN, attempted: "complete two at once")
        })

    /// The bytes have come when the cancel is called; the packet is still in the queue.
    private static func scenario(_ driver: DriverKind, handle: (Packet) -> String) throws -> Observation {
        let late = try CompletedInQueue(driver, "hello")
        let isFound = late.pair.server.cancel(late.request)
        let heard = handle(try late.port.next())
        let left = try late.pair.server.hear(1, within: .milliseconds(10))
        late.port.close()
        return Observation(
            happened: heard != "hello",
            lines: [
                "5 bytes had come; a cancel found \(isFound ? "something" : "nothing") to cancel",
                "the reader heard: \"\(heard)\"; left in the connection: \"\(left)\"",
            ])
    }
}
