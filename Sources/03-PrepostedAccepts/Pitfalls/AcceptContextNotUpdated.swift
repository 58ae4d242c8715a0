import Glibc
import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: uses an accepted socket as if it knew everything about itself.
struct BrokenFarewell {
    func dismiss(_ client: inout AcceptedSocket, from listener: Socket) throws(SystemError) {
        try client.shutDownSending()
    }
}

/// ✓ Fixed: the socket is told about its listener first.
struct Farewell {
    func dismiss(_ client: inout AcceptedSocket, from listener: Socket) throws(SystemError) {
        try client.updateContext(from: listener)
        try client.shutDownSending()
    }
}

/// An accepted socket has no peer address and refuses shutdown until it is told about its listener.
public enum AcceptContextNotUpdated {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accept-context-not-updated",
        title: "an accepted socket has no peer and refuses shutdown until it is told about its listener",
        broken: { driver in
            try farewell(driver) { (client, listener) throws(SystemError) in
                try BrokenFarewell().dismiss(&client, from: listener)
            }
        },
        fixed: { driver in
            try farewell(driver) { (client, listener) throws(SystemError) in
                try Farewell().dismiss(&client, from: listener)
            }
        })

    private static func farewell(
        _ driver: DriverKind, dismiss: (inout AcceptedSocket, Socket) throws(SystemError) -> Void
    ) throws -> Observation {
        let taken = Gate()
        let server = try Frame(driver, slots: 1, room: 0) { _, _, _, _ in taken.open() }
        let caller = try Caller(to: server.address)
        taken.pass()
        var client = AcceptedSocket(server.slots[0].socket)
        var lines = ["before: the peer is \(peer(client))"]
        var wasRefused = false
        do throws(SystemError) {
            try dismiss(&client, server.listener)
            lines.append("the sending side is shut down")
        } catch {
            wasRefused = error.code == ENOTCONN
            lines.append("\(error)")
        }
        let isTold = caller.isEnded(within: wasRefused ? Caller.glance : Gate.patience)
        lines.append("the client has \(isTold ? "heard the end" : "heard nothing of an end")")
        let expected = try? caller.socket.localAddress
        let isKnown = (try? client.remoteAddress) == expected
        lines.append("after: the peer is \(isKnown ? "the client" : peer(client))")
        caller.socket.close()
        client.socket.close()
        server.stop()
        return Observation(happened: wasRefused || !isTold || !isKnown, lines: lines)
    }

    private static func peer(_ client: AcceptedSocket) -> String {
        do throws(SystemError) { return try client.remoteAddress.description } catch { return "unknown" }
    }
}
