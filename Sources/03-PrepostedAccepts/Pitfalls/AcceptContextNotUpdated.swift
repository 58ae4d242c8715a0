import CompletionPorts
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
            let told = try farewell(driver) { (client, listener) throws(SystemError) in
                try Farewell().dismiss(&client, from: listener)
            }
            let isPoolsTold = try arrivesTold(driver)
            return Observation(
                happened: told.happened || !isPoolsTold,
                lines: told.lines + [
                    "a client that a pool hands over \(isPoolsTold ? "has been told" : "has not been told")"
                ])
        })

    /// Whether a client comes out of a pool with the step done: it knows its peer, and can be sent away.
    private static func arrivesTold(_ driver: DriverKind) throws -> Bool {
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        let listener = try Socket.listener(on: .loopback())
        try port.associate(listener, key: 0)
        var limits = AcceptPool.Options()
        limits.receiveLength = 0
        let (came, dismissed) = (Gate(), Counter())
        let pool = try AcceptPool(on: listener, options: limits) { arrival in
            if (try? arrival.client.remoteAddress) != nil, (try? arrival.client.shutDownSending()) != nil {
                dismissed.add()
            }
            came.open()
        }
        let workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
        try pool.start()
        let caller = try Caller(to: listener.localAddress)
        came.pass()
        let isTold = dismissed.value == 1 && caller.isEnded()
        caller.socket.close()
        pool.stop()
        workers.stop()
        return isTold
    }

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
