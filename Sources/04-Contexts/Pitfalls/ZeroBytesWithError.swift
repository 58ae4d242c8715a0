import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: looks at the bytes first. 0 bytes, so the client has said goodbye.
struct BrokenEnd {
    func reason(_ packet: Packet) -> CloseReason? {
        if packet.bytes == 0 { return .ended }
        return packet.error.map { CloseReason($0) }
    }
}

/// A failed completion with 0 bytes is taken for an orderly end.
public enum ZeroBytesWithError {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "zero-bytes-with-error",
        title: "a failed receive has 0 bytes as well, and is taken for an orderly end",
        broken: { driver in try scenario(driver) { BrokenEnd().reason($0) } },
        fixed: { driver in
            try scenario(driver) { CloseReason(.receive, bytes: $0.bytes, error: $0.error) }
        })

    private static func scenario(_ driver: DriverKind, reason: (Packet) -> CloseReason?) throws -> Observation
    {
        var seen: [CloseReason?] = []
        for isReset in [false, true] {
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 1)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            if isReset { try pair.client.abort() } else { pair.client.close() }
            seen.append(reason(try port.next()))
            port.close()
        }
        return Observation(
            happened: seen != [.ended, .reset],
            lines: [
                "a client closed: \(seen[0]?.description ?? "goes on")",
                "a client reset its connection: \(seen[1]?.description ?? "goes on")",
            ])
    }
}
