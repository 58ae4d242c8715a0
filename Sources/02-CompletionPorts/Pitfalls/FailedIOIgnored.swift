import CompletionPorts
import Glibc
import Kernel
import Stage

/// The connections of a small server, by key. A connection is in the table until somebody takes it out.
final class Connections {
    let port: CompletionPort
    private(set) var open: [UInt: (socket: Socket, request: Request)] = [:]
    private(set) var heard: [String] = []

    init(_ port: CompletionPort) { self.port = port }

    func add(_ socket: Socket, key: UInt) throws(SystemError) {
        let request = Request(Int(key))
        open[key] = (socket, request)
        try port.associate(socket, key: key)
        try socket.receive(request, into: request.memory)
    }

    func hear(_ packet: Packet) {
        if let request = packet.operation as? Request { heard.append(request.text(packet.bytes)) }
    }

    func remove(_ key: UInt) { open.removeValue(forKey: key)?.socket.close() }
}

/// ⚠︎ Broken on purpose: handles what succeeded and goes back to wait.
struct BrokenWorkerWithoutFailures {
    func turn(_ connections: Connections) {
        guard case .completed(let packet) = connections.port.dequeue(timeout: Gate.patience) else {
            // A failed operation ends here, with its key and its context, and nobody closes its connection.
            return
        }
        connections.hear(packet)
    }
}

/// A failed operation's packet is dropped: its context stays, its connection hangs.
public enum FailedIOIgnored {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "failed-io-ignored",
        title: "a failed operation is dropped: its context leaks and its connection is never closed",
        broken: { driver in try scenario(driver) { BrokenWorkerWithoutFailures().turn($0) } },
        fixed: { driver in
            try scenario(driver) { connections in
                switch connections.port.dequeue(timeout: Gate.patience) {
                case .completed(let packet): connections.hear(packet)
                case .failed(let packet, _): connections.remove(packet.key)
                case .timedOut, .closed: break
                }
            }
        })

    /// Three clients, of which two leave with a reset.
    private static func scenario(_ driver: DriverKind, turn: (Connections) -> Void) throws -> Observation {
        let connections = Connections(try CompletionPort.on(driver))
        let pairs = try Pair.several(3)
        for (key, pair) in pairs.enumerated() { try connections.add(pair.server, key: UInt(key)) }
        try pairs[0].client.abort()
        try pairs[1].client.abort()
        try pairs[2].client.say("hello")
        for _ in pairs { turn(connections) }
        let dead = pairs[..<2].filter { $0.server.descriptor >= 0 }.count
        connections.port.close()
        return Observation(
            happened: connections.open.count != 1 || dead > 0 || connections.heard != ["hello"],
            lines: [
                "three clients: two reset their connections, one said \(connections.heard)",
                "connections in the table: \(connections.open.count)",
                "dead connections whose descriptor is still open: \(dead)",
            ])
    }
}
