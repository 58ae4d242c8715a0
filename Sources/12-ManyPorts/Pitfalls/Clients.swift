import Glibc
import Kernel
import ManyPorts
import Stage

/// Clients of an echo server, with plain calls: each says something and compares what comes back.
public final class Clients: Sendable {
    private let sockets: [Socket]

    init(_ sockets: [Socket]) { self.sockets = sockets }

    /// Connects them one after the other: each has its place before the next one comes.
    public convenience init(to address: Address, count: Int, of set: PortSet) throws(SystemError) {
        var sockets: [Socket] = []
        let before = set.hub.connectionCount
        for number in 1...count {
            let socket = try Socket.connected(to: address)
            try socket.setNoDelay()
            sockets.append(socket)
            guard eventually({ set.hub.connectionCount == before + number }) else {
                throw SystemError(ETIMEDOUT, attempted: "get client \(number) in")
            }
        }
        self.init(sockets)
    }

    /// How many they are.
    public var count: Int { sockets.count }

    /// Every `step`th of them, from the first on.
    public func every(_ step: Int) -> Clients {
        Clients(stride(from: 0, to: sockets.count, by: step).map { sockets[$0] })
    }

    /// The first so many, or the others.
    public func prefix(_ count: Int) -> Clients { Clients(Array(sockets.prefix(count))) }

    /// Each makes so many round trips: all of them say something, and then all hear it.
    ///
    /// - Returns: Whether every byte came back.
    public func talk(trips: Int, size: Int = 64) throws(SystemError) -> Bool {
        for trip in 0..<trips {
            let message = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ trip) }
            for socket in sockets { try socket.say(message) }
            for socket in sockets where try socket.hearBytes(size) != message { return false }
        }
        return true
    }

    /// Ends all connections with a reset: orderly ends would leave the system ports that cannot be used for a minute.
    public func close() {
        for socket in sockets { try? socket.abort() }
    }
}
