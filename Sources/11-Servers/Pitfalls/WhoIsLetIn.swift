import Contexts
import Glibc
import Kernel
import Reordering
import Servers
import Stage

/// One more than there may be.
public enum ConnectionLimit {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "connection-limit", title: "one more than the maximum connects, and is closed without a word",
        broken: { driver in
            let hub = try startHub(driver) { $0.maximumConnections = 2 }
            let address = try hub.listen { _ in StreamProgram() }
            let all = try (0..<3).map { _ in try Socket.connected(to: address) }
            let answers = all.map { $0.isAnswered(within: .seconds(5)) }
            let refused = answers.firstIndex(of: false) ?? 0
            let heard = readAll(all[refused])
            hub.stop()
            return Observation(
                happened: answers.count { $0 } == 2 && heard.bytes.isEmpty,
                lines: [
                    "two are answered",
                    "the third connects, and hears \(heard.bytes.count) bytes: is the server broken?",
                ])
        },
        fixed: { driver in
            let server = try startServer(driver) { $0.endpoint.maximumConnections = 2 }
            let two = try (0..<2).map { _ in try PlainClient(to: server.address!) }
            let before = two.allSatisfy { $0.isEchoed() }
            let third = try PlainClient(to: server.address!)
            let words = third.hear()
            let ends = third.socket.isEnded()
            let after = two.allSatisfy { $0.isEchoed() }
            two[0].socket.close()
            // A place is free as soon as its session is over.
            let isIn = eventually {
                (try? PlainClient(to: server.address!))?.isEchoed(within: .seconds(1)) == true
            }
            let last = try server.stop(within: .zero)
            return Observation(
                happened: !before || words != "full: 2 connections" || !ends || !after || !isIn
                    || (last.refused[.limit] ?? 0) < 1 || !last.isQuiet,
                lines: [
                    "the third hears \"\(words ?? "nothing")\", and the end: \(ends)",
                    "the other two notice nothing: \(after)",
                    "refused: \(last.refused[.limit] ?? 0); when one has left, the next is let in: \(isIn)",
                ])
        })
}

/// One address opens all the connections.
public enum OneAddressTakesAll {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "one-address-takes-all", title: "one address takes every place, and nobody else gets in",
        broken: { driver in
            let hub = try startHub(driver) { $0.maximumConnections = 4 }
            let address = try hub.listen { _ in StreamProgram() }
            let greedy = try (0..<4).map { _ in
                try Socket.connected(to: address, from: Address("127.0.0.1", port: 0))
            }
            let served = greedy.count { $0.isAnswered() }
            let honest = try Socket.connected(to: address, from: Address("127.0.0.2", port: 0))
            let isServed = honest.isAnswered(within: .seconds(5))
            hub.stop()
            return Observation(
                happened: served == 4 && !isServed,
                lines: ["127.0.0.1 has \(served) of 4 places", "127.0.0.2 is served: \(isServed)"])
        },
        fixed: { driver in
            let server = try startServer(driver) {
                $0.endpoint.maximumConnections = 4
                $0.endpoint.maximumPerAddress = 3
            }
            let greedy = try (0..<3).map { _ in try PlainClient(to: server.address!, from: "127.0.0.1") }
            let served = greedy.count { $0.isEchoed() }
            let fourth = try PlainClient(to: server.address!, from: "127.0.0.1")
            let words = fourth.hear()
            let honest = try PlainClient(to: server.address!, from: "127.0.0.2")
            let isServed = honest.isEchoed()
            let last = try server.stop(within: .zero)
            return Observation(
                happened: served != 3 || words != "full: 3 connections from one address" || !isServed
                    || last.refused[.perAddress] != 1,
                lines: [
                    "the fourth of 127.0.0.1 hears \"\(words ?? "nothing")\"",
                    "127.0.0.2 is served: \(isServed)",
                ])
        })
}

/// A banned client finds out that there is a server.
public enum BannedSeesTheServer {
    static let banned = AddressRange("127.0.0.3")!

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "banned-sees-the-server",
        title: "a banned client is accepted, served with a session, and closed",
        broken: { driver in
            let (made, over) = (Counter(), Counter())
            let hub = try startHub(driver)
            let address = try hub.listen { connection in
                // ⚠︎ Broken on purpose: everything is made, and then somebody looks at the list.
                made.add()
                if let remote = connection.remoteAddress, banned.contains(remote) { connection.close() }
                return StreamProgram(closed: { _ in over.add() })
            }
            let client = try? Socket.connected(to: address, from: Address("127.0.0.3", port: 0))
            let isOver = eventually { over.value == 1 }
            hub.stop()
            return Observation(
                happened: client != nil && made.value == 1 && isOver,
                lines: [
                    "its connect succeeds, a handler is made (\(made.value)) and released: so it comes again"
                ])
        },
        fixed: { driver in
            let program = Program.echo()
            let server = try startServer(driver, program) { $0.endpoint.bans.add(banned) }
            let isSilent = server.statistics.bansAreSilent
            let seen = isSilent ? try askInSilence(server) : try askAndBeReset(server)
            let other = try PlainClient(to: server.address!, from: "127.0.0.2")
            let isServed = other.isEchoed()
            let made = program.made.value
            let last = try server.stop(within: .zero)
            return Observation(
                happened: !seen.isRight || !isServed || made != 1 || last.bansAreSilent != isSilent,
                lines: [
                    seen.words,
                    "nothing was made for it (\(made) session, the other's); 127.0.0.2 is served: \(isServed)",
                ])
        })

    /// The listener's counter tells, not a time: its request is dropped there.
    private static func askInSilence(_ server: Server) throws -> (isRight: Bool, words: String) {
        let socket = try Socket(boundTo: Address("127.0.0.3", port: 0)!)
        let before = server.droppedRequests
        socket.beginConnect(to: server.address!)
        let isDropped = eventually { server.droppedRequests > before }
        socket.close()
        return (
            isDropped, "silent: its request for a connection is dropped by the system, and it hears nothing"
        )
    }

    private static func askAndBeReset(_ server: Server) throws -> (isRight: Bool, words: String) {
        let client = try PlainClient(to: server.address!, from: "127.0.0.3")
        let ends = client.socket.isEnded()
        return (
            ends && eventually { server.statistics.refused[.banned] == 1 },
            "this process may not filter: it is reset at the accept, before anything is made"
        )
    }
}

extension Socket {
    /// Sends the request for a connection, and does not wait for an answer.
    fileprivate func beginConnect(to address: Address) {
        var system = sockaddr_in()
        system.sin_family = sa_family_t(AF_INET)
        system.sin_port = address.port.bigEndian
        inet_pton(AF_INET, address.host, &system.sin_addr)
        withUnsafePointer(to: &system) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}

/// The place of an address whose connection was reset is never given back.
public enum AddressNeverFreed {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "address-never-freed",
        title: "after a reset the address stays in the list, and never gets in again",
        broken: { _ in
            var limits = AddressLimits(limit: 1)
            let pair = try Pair()
            let first = try limits.enter(pair.server.remoteAddress)
            try pair.client.abort()
            _ = pair.server.waits(for: POLLHUP, until: .after(.seconds(10)))
            // ⚠︎ Broken on purpose: the address is asked for when it is needed. (EAGAIN: it does not block.)
            _ = try? pair.server.receiveNow(into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            let asked = try? pair.server.remoteAddress
            if let asked { limits.leave(asked) }
            let next = try Pair()
            let again = try limits.enter(next.server.remoteAddress)
            return Observation(
                happened: first && asked == nil && !again,
                lines: [
                    "after the reset the system knows no address: \(asked == nil)",
                    "the next connection gets in: \(again)",
                ])
        },
        fixed: { driver in
            let server = try startServer(driver) { $0.endpoint.maximumPerAddress = 1 }
            var served = 0
            for _ in 0..<3 {
                let isIn = eventually {
                    guard let client = try? PlainClient(to: server.address!),
                        client.isEchoed(within: .seconds(2))
                    else {
                        return false
                    }
                    try? client.socket.abort()
                    return true
                }
                if isIn { served += 1 }
            }
            let last = try server.stop(within: .zero)
            return Observation(
                happened: served != 3 || !last.isQuiet,
                lines: [
                    "three connections of one address after each other, each ends with a reset: \(served) get in"
                ])
        })
}
