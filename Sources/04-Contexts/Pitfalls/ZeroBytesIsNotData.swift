import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: whatever comes is data, also nothing.
struct BrokenReceiver {
    private(set) var handled = 0

    mutating func handle(_ packet: Packet, _ socket: Socket, _ request: Request) throws(SystemError) {
        handled += 1
        try socket.receive(request, into: request.memory)
    }
}

/// A receive that completes with 0 bytes is posted again, for ever.
public enum ZeroBytesIsNotData {
    private static let bound = 1_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "zero-bytes-is-not-data",
        title: "0 bytes are taken for data, and the receive is posted again at full speed for ever",
        broken: { driver in
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 1)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            pair.client.close()
            var receiver = BrokenReceiver()
            let start = monotonicNanoseconds()
            while receiver.handled < bound { try receiver.handle(try port.next(), pair.server, request) }
            let time = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
            pair.server.close()
            port.close()
            return Observation(
                happened: receiver.handled == bound,
                lines: [
                    "the client closed; packets with 0 bytes: \(receiver.handled) in \(readable(time)), "
                        + "and it would go on"
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let pair = try Pair()
            try stand.table.admit(pair.server)
            pair.client.close()
            var packets = 0
            while packets < bound, case .some(let packet) = try? stand.port.next(within: .milliseconds(50)) {
                packets += 1
                stand.table.handle(packet, packet.error)
            }
            let ends = stand.ends.locked { $0 }
            return Observation(
                happened: packets != 1 || ends != [.ended] || !stand.finish(),
                lines: [
                    "the client closed; packets: \(packets); announced: \(ends.map(\.description))",
                    "alive afterwards: \(stand.table.counters.alive)",
                ])
        })
}
