import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: whoever has cancelled takes no more notice of what comes.
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
            try scenario(driver) { packet in
                // The packet says what has become of the operation, not what was asked for.
                guard let request = packet.operation as? Request, packet.errorCode == 0 else { return "" }
                return request.text(packet.bytes)
            }
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
