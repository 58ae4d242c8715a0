import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: knows a packet by its key alone, and the key is the connection's.
struct BrokenByKeyAlone {
    private(set) var received = 0

    mutating func handle(_ packet: Packet) {
        // Bytes have come on connection 7. Or have gone?
        if packet.key == 7 { received += packet.bytes }
    }
}

/// One key for all operations of a socket: a finished send looks like a finished receive.
public enum WhichOperation {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "which-operation",
        title: "by the key alone, a finished receive and a finished send look alike",
        broken: { driver in
            var worker = BrokenByKeyAlone()
            return try scenario(driver) { packet in
                worker.handle(packet)
                return worker.received
            }
        },
        fixed: { driver in
            var (received, sent) = (0, 0)
            let seen = try scenario(driver) { packet in
                switch (packet.operation as? IOContext)?.purpose {
                case .receive: received += packet.bytes
                case .reply: sent += packet.bytes
                default: break
                }
                return received
            }
            return Observation(
                happened: seen.happened || sent != 5,
                lines: seen.lines + ["bytes that it took for sent: \(sent)"])
        })

    /// A receive and a send under one key: 3 bytes come, 5 bytes go.
    private static func scenario(_ driver: DriverKind, handle: (Packet) -> Int) throws -> Observation {
        let pair = try Pair()
        let port = try CompletionPort.on(driver)
        try port.associate(pair.server, key: 7)
        let (receive, send) = (IOContext(), IOContext())
        try receive.receive(on: pair.server)
        _ = Array("hello".utf8).withUnsafeBytes { send.fill($0) }
        try send.send(5, on: pair.server)
        try pair.client.say("abc")
        var received = 0
        for _ in 1...2 { received = handle(try port.next()) }
        port.close()
        return Observation(
            happened: received != 3,
            lines: [
                "the client said 3 bytes and was sent 5",
                "bytes that the worker took for received: \(received)",
            ])
    }
}
