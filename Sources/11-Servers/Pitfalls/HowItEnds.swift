import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Servers
import Stage

/// The server closes right after its last send.
public enum CloseBeforeDelivered {
    static let length = 400_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "close-before-delivered",
        title: "closing with unread input turns the end into a reset, and what was sent last is lost",
        broken: { _ in
            let pair = try Pair()
            try pair.client.setBufferSizes(receive: 4_096)
            try pair.server.setBufferSizes(send: 2 << 20)
            try pair.client.say("first second")
            _ = try pair.server.hear(5)
            try pair.server.say([UInt8](repeating: 7, count: length))
            // ⚠︎ Broken on purpose: the system has taken all of it, and " second" lies unread.
            pair.server.close()
            let heard = readAll(pair.client)
            return Observation(
                happened: heard.bytes.count < length && !heard.isWhole,
                lines: [
                    "the system had taken \(length) bytes",
                    "the client hears \(heard.bytes.count), and a reset",
                ])
        },
        fixed: { driver in
            let program = Program()
            program.onReceived = { message, session in
                // The answer to the first, and the end; what the client says meanwhile is read, and thrown away.
                guard message == Array("first".utf8) else { return }
                for number in 0..<50 {
                    let part = [UInt8](repeating: UInt8(number), count: length / 50)
                    try? session.reply(part.span.bytes)
                }
                session.finish()
            }
            let server = try startServer(driver, program) { $0.endpoint.maximumPendingSends = 200 }
            let client = try PlainClient(to: server.address!)
            try client.socket.setBufferSizes(receive: 4_096)
            try client.say("first")
            try client.say("second")
            try client.say("third")
            _ = eventually { client.socket.unread > 0 }
            try client.socket.setBufferSizes(receive: 1 << 20)
            let heard = readAll(client.socket)
            client.socket.close()
            _ = eventually { server.connectionCount == 0 }
            let last = try server.stop()
            return Observation(
                happened: heard.bytes.count != length + 50 * 4 || !heard.isWhole || !last.isQuiet,
                lines: ["half closed, drained, closed: \(heard.bytes.count - 200) bytes and the end"])
        })
}

/// A send that has completed is taken for delivery.
public enum SentIsNotDelivered {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "sent-is-not-delivered",
        title: "a completed send is taken for delivery, and the client has read nothing",
        broken: { driver in
            let delivered = Counter()
            let program = Program()
            program.onConnected = { session in try? session.send("your order", token: 7) }
            // ⚠︎ Broken on purpose: `sent` is the system's word, not the client's.
            program.onSent = { _, _ in delivered.add() }
            let server = try startServer(driver, program)
            let client = try PlainClient(to: server.address!)
            let isCounted = eventually { delivered.value == 1 }
            let unread = client.socket.unread
            try client.socket.abort()
            try server.stop(within: .zero)
            return Observation(
                happened: isCounted,
                lines: [
                    "counted as delivered: \(delivered.value)",
                    "the client resets with \(unread) bytes unread",
                ])
        },
        fixed: { driver in
            let (acknowledged, undelivered) = (Counter(), Guarded<[Int]>([]))
            let program = Program()
            program.onConnected = { session in
                try? session.sendAcknowledged(Array("your order".utf8).span.bytes, token: 7)
            }
            program.onAcknowledged = { _ in acknowledged.add() }
            program.onDisconnected = { session, _ in undelivered.locked { $0 = session.undelivered } }
            let server = try startServer(driver, program) { $0.endpoint.acknowledges = true }
            let silent = try PlainClient(to: server.address!)
            _ = eventually { silent.socket.unread > 0 }
            try silent.socket.abort()
            let isKnown = eventually { undelivered.locked { $0 } == [7] }
            let before = acknowledged.value
            // A client whose program says that it has it.
            let ears = Program()
            let heard = Counter()
            ears.onReceived = { _, _ in heard.add() }
            let client = try startClient(driver, to: server.address!, ears) {
                $0.endpoint.acknowledges = true
            }
            let isAcknowledged = eventually { acknowledged.value == 1 }
            try client.stop()
            try server.stop()
            return Observation(
                happened: !isKnown || before != 0 || !isAcknowledged || heard.value != 1,
                lines: [
                    "the one that reset: acknowledged \(before), and its end lists what is undelivered: \(isKnown)",
                    "the one that took it said so: acknowledged \(acknowledged.value)",
                ])
        })
}

/// The time-outs of a socket mean nothing to what is pending.
public enum SocketTimeoutsIgnored {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "socket-timeouts-ignored",
        title: "SO_RCVTIMEO is set, and a pending receive waits on all the same",
        broken: { driver in
            let heard = Gate()
            let hub = try startHub(driver)
            let over = Counter()
            let address = try hub.listen { connection in
                try? connection.socket.setReceiveTimeout(milliseconds: 20)
                return StreamProgram(received: { _, _ in heard.open() }, closed: { _ in over.add() })
            }
            let client = try Socket.connected(to: address)
            _ = eventually { hub.connectionCount == 1 }
            // The time-out is over five times; a byte then shows that the receive was still pending.
            usleep(100_000)
            let ends = over.value
            try client.say("x")
            let isHeard = heard.pass()
            hub.stop()
            return Observation(
                happened: ends == 0 && isHeard,
                lines: ["after five times its limit the receive is pending, and takes a byte: \(isHeard)"])
        },
        fixed: { driver in
            let program = Program()
            let server = try startServer(driver, program) { $0.endpoint.limits.idle = .milliseconds(100) }
            let client = try PlainClient(to: server.address!)
            try client.say("hello")
            let ends = client.socket.isEnded()
            _ = eventually { server.connectionCount == 0 }
            let last = try server.stop()
            return Observation(
                happened: !ends || last.ends[.timedOut(.idle)] != 1,
                lines: [
                    "the server's own clock ends it: \(last.ends.map { "\($0.key)" }.joined(separator: ", "))"
                ])
        })
}

extension Socket {
    fileprivate func setReceiveTimeout(milliseconds: Int) throws(SystemError) {
        var time = timeval(tv_sec: 0, tv_usec: milliseconds * 1_000)
        guard
            setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size)) == 0
        else { throw SystemError(errno, attempted: "set a time-out") }
    }
}

/// Both sides write before they read.
public enum BacklogDeadlock {
    static let count = 500, size = 4_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "backlog-deadlock",
        title: "client and server write before they read: each waits for the other's room",
        broken: { _ in
            let pair = try Pair()
            for socket in [pair.client, pair.server] {
                try socket.setBufferSizes(send: 4_096, receive: 4_096)
            }
            let bytes = [UInt8](repeating: 7, count: 8 << 20)
            // ⚠︎ Broken on purpose: each says all it has to say before it listens. The bound stands for waiting for ever.
            let stuck = Counter()
            inThreads(2) { number in
                let socket = number == 0 ? pair.client : pair.server
                if (try? socket.say(bytes, within: .seconds(1))) == nil { stuck.add() }
            }
            let unread = (pair.client.unread, pair.server.unread)
            return Observation(
                happened: stuck.value == 2 && unread.0 > 0 && unread.1 > 0,
                lines: ["both wait for room, with \(unread.0) and \(unread.1) bytes unread before them"])
        },
        fixed: { driver in
            let program = Program()
            // The systems' own buffers could take all of it.
            let isNarrow: @Sendable (Session) -> Void = {
                try? $0.socket?.setBufferSizes(send: 65_536, receive: 65_536)
            }
            program.onConnected = isNarrow
            program.onReceived = { message, session in try? session.send(message.span.bytes) }
            let server = try startServer(driver, program)
            let (heard, isRight, mayRead, all) = (Counter(), Guarded(true), Gate(), Gate())
            let ears = Program()
            ears.onConnected = isNarrow
            ears.onReceived = { message, _ in
                mayRead.pass()
                let number = heard.add() - 1
                if message != [UInt8](repeating: UInt8(number % 251), count: size) {
                    isRight.locked { $0 = false }
                }
                if number == count - 1 { all.open() }
            }
            let client = try startClient(driver, to: server.address!, ears) {
                $0.endpoint.whenFull = .refuses
            }
            defer { mayRead.open() }
            guard eventually({ client.links[0].session != nil }), let session = client.links[0].session else {
                throw SystemError(ETIMEDOUT, attempted: "connect")
            }
            var said = 0
            func sayAsLongAsThereIsRoom() {
                while said < count {
                    let message = [UInt8](repeating: UInt8(said % 251), count: size)
                    guard (try? session.send(message.span.bytes)) != nil else { return }
                    said += 1
                }
            }
            // Both are full, as in the broken half: the client's sends are refused, and the server does not read.
            let isFull = eventually {
                sayAsLongAsThereIsRoom()
                return said < count && server.statistics.paused == 1
            }
            mayRead.open()
            let isComplete = eventually(within: .seconds(30)) {
                sayAsLongAsThereIsRoom()
                return all.isOpen
            }
            try client.stop(within: .zero)
            let last = try server.stop(within: .zero)
            let inOrder = isRight.locked { $0 }
            return Observation(
                happened: !isFull || !isComplete || !inOrder || !last.isQuiet,
                lines: [
                    "both are full: the client's sends are refused, the server has paused it: \(isFull)",
                    "\(heard.value) of \(count) messages there and back, in order: \(inOrder)",
                ])
        })
}
