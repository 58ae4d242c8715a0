import Glibc
import Kernel

/// Both ends of a TCP connection on the loopback. Neither blocks.
public struct Pair: Sendable {
    /// The end that is served: by a port, a hub, or the scenario itself.
    public let server: Socket
    /// The other side, for plain calls.
    public let client: Socket

    /// Connects them, over IPv4 or IPv6.
    public init(_ address: Address = .loopback()) throws(SystemError) {
        let listener = try Socket.listener(on: address)
        client = try Socket.connected(to: try listener.localAddress)
        try listener.setBlocking(true)
        guard let accepted = try listener.acceptNow() else {
            throw SystemError(EAGAIN, attempted: "accept a connection that stands")
        }
        server = accepted
        listener.close()
        try client.setNoDelay()
        try server.setNoDelay()
    }

    /// This many connections.
    public static func several(_ count: Int) throws(SystemError) -> [Pair] {
        var pairs: [Pair] = []
        for _ in 0..<count { pairs.append(try Pair()) }
        return pairs
    }
}
