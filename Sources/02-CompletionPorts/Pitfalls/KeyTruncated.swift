import CompletionPorts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: takes the key out of a packet as the code does that was written when a pointer had 32 bits.
struct BrokenNarrowKey {
    func key(of packet: Packet) -> UInt {
        // In C: `DWORD key;`, and a cast that silences the compiler.
        UInt(UInt32(truncatingIfNeeded: packet.key))
    }
}

/// Three connections have keys of 64 bits, and say who they are. Whose packet does the worker take each for?
public enum KeyTruncated {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "key-truncated",
        title: "a key of 64 bits is kept in 32: its packet finds nobody, or a stranger",
        broken: { driver in try run(driver) { BrokenNarrowKey().key(of: $0) } },
        fixed: { driver in try run(driver) { $0.key } })

    /// What is found by its address.
    private final class Context {}

    private static func run(_ driver: DriverKind, key: (Packet) -> UInt) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let context = Context()
        let connections: [(name: String, key: UInt)] = [
            // A pointer, as most servers have it. Memory of a program lies far above 4 GiB.
            ("ann", UInt(bitPattern: Unmanaged.passUnretained(context).toOpaque())),
            // A place in a table, and in the upper half how often it has been given away.
            ("bob", 5),
            ("cleo", 1 << 32 | 5),
        ]
        let names = Dictionary(uniqueKeysWithValues: connections.map { ($0.key, $0.name) })
        var lines: [String] = []
        var happened = false
        for connection in connections {
            let pair = try Pair()
            try port.associate(pair.server, key: connection.key)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            try pair.client.say(connection.name)
            let packet = try port.next()
            let found = names[key(packet)]
            happened = happened || found != request.text(packet.bytes)
            lines.append("\(request.text(packet.bytes)) speaks: taken for \(found ?? "nobody")")
            pair.server.close()
        }
        withExtendedLifetime(context) {}
        port.close()
        return Observation(happened: happened, lines: lines)
    }
}
