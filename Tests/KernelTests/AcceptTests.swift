import CKernel
import Glibc
import Kernel
import Stage
import Testing

/// An accept with its socket and its memory.
private final class Accept: Overlapped, @unchecked Sendable {
    let socket = Socket()
    let buffer: Buffer
    let receiveLength: Int

    init(_ receiveLength: Int) {
        self.receiveLength = receiveLength
        buffer = Buffer(receiveLength + 2 * Address.capacity)
    }

    func post(on listener: Socket) throws {
        try listener.accept(self, socket, into: buffer.area, receiveLength: receiveLength)
    }

    var result: AcceptBuffer { AcceptBuffer(buffer.content, receiveLength: receiveLength) }
    var firstData: String { String(decoding: result.firstData(bytes), as: UTF8.self) }
}

extension KernelSuite {
    @Suite("accept") struct Accepts {
        private func listener(_ collector: Collector, on address: Address = .loopback()) throws -> Socket {
            let listener = try Socket.listener(on: address)
            try listener.associate(with: collector, key: 5, driver: collector.driver)
            return listener
        }

        @Test(
            "what is set on a listener, its accepted sockets have: no delay, keep-alive and its times",
            arguments: DriverKind.permitted, [0, 16])
        func inheritance(kind: DriverKind, receiveLength: Int) throws {
            try withCollector(kind) { collector in
                let options: [(level: Int32, name: Int32, value: Int32)] = [
                    (Int32(IPPROTO_TCP), TCP_NODELAY, 1), (SOL_SOCKET, SO_KEEPALIVE, 1),
                    (Int32(IPPROTO_TCP), TCP_KEEPIDLE, 77), (Int32(IPPROTO_TCP), TCP_KEEPINTVL, 7),
                    (Int32(IPPROTO_TCP), TCP_KEEPCNT, 3),
                ]
                let listener = try Socket.listener(on: .loopback())
                for option in options { try listener.set(option.level, option.name, option.value) }
                try listener.associate(with: collector, key: 5, driver: collector.driver)
                let (buffer, socket) = (Buffer(receiveLength + 2 * Address.capacity), Socket())
                try listener.accept(buffer, socket, into: buffer.area, receiveLength: receiveLength)
                let peer = try Peer(connectingTo: listener.localAddress)
                peer.send("x")
                #expect(try #require(collector.next()).operation === buffer)
                for option in options {
                    var (value, length) = (Int32(-1), socklen_t(4))
                    getsockopt(socket.descriptor, option.level, option.name, &value, &length)
                    #expect(value == option.value, "option \(option.name)")
                }
            }
        }

        @Test(
            "without room for data it completes at connect, with both addresses",
            arguments: DriverKind.permitted, Address.loopbacks)
        func atConnect(kind: DriverKind, address: Address) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector, on: address)
                let accept = Accept(0)
                try accept.post(on: listener)
                #expect(accept.socket.connectTime == nil && collector.isSilent())
                let peer = try Peer(connectingTo: listener.localAddress)
                let packet = try #require(collector.next())
                #expect(
                    packet.operation === accept && packet.code == 0 && packet.bytes == 0 && packet.key == 5)
                let expected = try listener.localAddress
                #expect(accept.result.local == expected)
                let client = try peer.socket.localAddress
                #expect(accept.result.remote == client)
                #expect(try accept.socket.remoteAddress == client)
                #expect(try #require(accept.socket.connectTime) < .seconds(5))
                // The connection works, without a port and after joining one.
                let receive = Buffer(8)
                try accept.socket.receive(receive)
                try accept.socket.associate(with: collector, key: 6, driver: collector.driver)
                peer.send("hello")
                #expect(try #require(collector.next()).key == 6 && receive.text == "hello")
            }
        }

        @Test("with room it completes at the first data", arguments: DriverKind.permitted, [false, true])
        func firstData(kind: DriverKind, isAssociatedBefore: Bool) throws {
            try withCollector(kind) { collector in
                for address in Address.loopbacks {
                    let listener = try listener(collector, on: address)
                    let accept = Accept(64)
                    if isAssociatedBefore {
                        try accept.socket.associate(with: collector, key: 6, driver: collector.driver)
                    }
                    try accept.post(on: listener)
                    let peer = try Peer(connectingTo: listener.localAddress)
                    #expect(
                        eventually { accept.socket.connectTime != nil },
                        "a silent client can be told by its time")
                    #expect(collector.isSilent() && accept.isPending)
                    peer.send("first words")
                    let packet = try #require(collector.next())
                    #expect(packet.operation === accept && packet.key == 5 && packet.bytes == 11)
                    #expect(accept.firstData == "first words")
                    let expected = try listener.localAddress
                    #expect(accept.result.local == expected)
                    let client = try peer.socket.localAddress
                    #expect(accept.result.remote == client)
                    // What comes after is for receives.
                    let receive = Buffer(8)
                    try accept.socket.receive(receive)
                    peer.send("more")
                    #expect(receive.wait(until: .after(.seconds(5))) && receive.text == "more")
                    if isAssociatedBefore { #expect(collector.next()?.operation === receive) }
                }
            }
        }

        @Test("data that is longer than the room is left for receives", arguments: DriverKind.permitted)
        func longFirstData(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let peer = try Peer(connectingTo: listener.localAddress)
                peer.send("12345678")
                let accept = Accept(5)
                try accept.post(on: listener)
                #expect(try #require(collector.next()).bytes == 5 && accept.firstData == "12345")
                let receive = Buffer(8)
                try accept.socket.receive(receive)
                #expect(receive.wait(until: .after(.seconds(5))) && receive.text == "678")
            }
        }

        @Test(
            "a client that leaves without a word: 0 bytes; one that resets: a failure",
            arguments: DriverKind.permitted)
        func silentClients(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let leaves = Accept(16)
                try leaves.post(on: listener)
                let first = try Peer(connectingTo: listener.localAddress)
                #expect(eventually { leaves.socket.descriptor >= 0 })
                first.socket.close()
                let left = try #require(collector.next())
                #expect(left.operation === leaves && left.bytes == 0 && left.code == 0)
                let resets = Accept(16)
                try resets.post(on: listener)
                let second = try Peer(connectingTo: listener.localAddress)
                #expect(eventually { resets.socket.descriptor >= 0 })
                try second.reset()
                let failed = try #require(collector.next())
                #expect(failed.operation === resets && failed.code == ECONNRESET && failed.key == 5)
                // The listener goes on.
                let next = Accept(0)
                try next.post(on: listener)
                _ = try Peer(connectingTo: listener.localAddress)
                #expect(try #require(collector.next()).operation === next)
            }
        }

        @Test(
            "a client that resets in the backlog fails the accept that takes it",
            arguments: DriverKind.permitted)
        func resetInBacklog(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                try Peer(connectingTo: listener.localAddress).reset()
                let accept = Accept(16)
                try accept.post(on: listener)
                let failed = try #require(collector.next())
                #expect(failed.operation === accept && failed.code == ECONNRESET && failed.key == 5)
                #expect(accept.socket.descriptor >= 0, "it has its dead client")
                // Without room for data nothing has been received yet that could fail.
                try Peer(connectingTo: listener.localAddress).reset()
                let other = Accept(0)
                try other.post(on: listener)
                let taken = try #require(collector.next())
                #expect(taken.operation === other && taken.code == 0)
                #expect(throws: SystemError(ECONNRESET, attempted: "")) {
                    try other.socket.receiveNow(into: other.buffer.area)
                }
            }
        }

        @Test(
            "accepts are used in posting order; a late one takes the client that waits longest",
            arguments: DriverKind.permitted)
        func order(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let accepts = (0..<4).map { _ in Accept(0) }
                for accept in accepts { try accept.post(on: listener) }
                var peers: [Peer] = []
                for accept in accepts {
                    let peer = try Peer(connectingTo: listener.localAddress)
                    peers.append(peer)
                    #expect(try #require(collector.next()).operation === accept)
                    let client = try peer.socket.localAddress
                    #expect(accept.result.remote == client)
                }
                let waiting = try (0..<3).map { _ in try Peer(connectingTo: listener.localAddress) }
                #expect(collector.isSilent())
                for peer in waiting {
                    let late = Accept(0)
                    try late.post(on: listener)
                    #expect(try #require(collector.next()).operation === late)
                    let client = try peer.socket.localAddress
                    #expect(late.result.remote == client)
                }
            }
        }

        @Test("a silent client does not hold up the next one", arguments: DriverKind.permitted)
        func silentClientsInBetween(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let accepts = (0..<3).map { _ in Accept(16) }
                for accept in accepts { try accept.post(on: listener) }
                let silent = try Peer(connectingTo: listener.localAddress)
                let talker = try Peer(connectingTo: listener.localAddress)
                talker.send("hello")
                #expect(try #require(collector.next()).operation === accepts[1])
                silent.send("at last")
                #expect(try #require(collector.next()).operation === accepts[0])
                #expect(accepts[2].isPending)
            }
        }

        @Test(
            "cancelled through the listener while it waits for data, not through the socket",
            arguments: DriverKind.permitted)
        func cancelWhileSilent(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let accept = Accept(16)
                let other = Accept(16)
                try accept.post(on: listener)
                try other.post(on: listener)
                let peer = try Peer(connectingTo: listener.localAddress)
                #expect(eventually { accept.socket.descriptor >= 0 })
                #expect(!accept.socket.cancel() && !accept.socket.cancel(accept))
                #expect(collector.isSilent() && accept.isPending)
                #expect(listener.cancel(accept))
                let packet = try #require(collector.next())
                #expect(packet.operation === accept && packet.code == ECANCELED && packet.key == 5)
                #expect(!listener.cancel(accept) && other.isPending)
                accept.socket.close()
                #expect(peer.sawEnd)
                // An accept that nobody connected to can be cancelled, and its socket used again.
                #expect(listener.cancel())
                #expect(try #require(collector.next()).code == ECANCELED)
                let again = Buffer(2 * Address.capacity)
                try listener.accept(again, other.socket, into: again.area, receiveLength: 0)
                _ = try Peer(connectingTo: listener.localAddress)
                #expect(try #require(collector.next()).operation === again)
            }
        }

        @Test(
            "closing the listener cancels what waits for clients and what waits for data",
            arguments: DriverKind.permitted)
        func closingTheListener(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let accepts = (0..<4).map { _ in Accept(16) }
                for accept in accepts { try accept.post(on: listener) }
                let peers = try (0..<2).map { _ in try Peer(connectingTo: listener.localAddress) }
                #expect(eventually { accepts[1].socket.descriptor >= 0 })
                listener.close()
                let packets = collector.next(4)
                #expect(packets.count == 4 && packets.allSatisfy { $0.code == ECANCELED && $0.key == 5 })
                #expect(
                    Set(packets.map { ObjectIdentifier($0.operation) }).count == 4 && collector.isSilent())
                for accept in accepts { accept.socket.close() }
                for peer in peers { #expect(peer.sawEnd) }
            }
        }

        @Test("closing the socket of a pending accept completes it", arguments: DriverKind.permitted)
        func closingTheSocket(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                // At once, and no other accept: nobody has connected, and nobody has to.
                let early = Accept(16)
                let other = Accept(0)
                try early.post(on: listener)
                try other.post(on: listener)
                early.socket.close()
                let packet = try #require(collector.next())
                #expect(packet.operation === early && packet.code == ECANCELED && packet.key == 5)
                #expect(collector.isSilent() && other.isPending)
                let peer = try Peer(connectingTo: listener.localAddress)
                #expect(try #require(collector.next()).operation === other)
                let client = try peer.socket.localAddress
                #expect(try other.socket.remoteAddress == client)
                let late = Accept(16)
                try late.post(on: listener)
                let second = try Peer(connectingTo: listener.localAddress)
                #expect(eventually { late.socket.descriptor >= 0 })
                late.socket.close()
                #expect(try #require(collector.next()).code == ECANCELED)
                #expect(second.sawEnd)
            }
        }

        @Test("what cannot be accepted with", arguments: DriverKind.permitted)
        func refusals(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let deaf = try Socket(boundTo: .loopback())
                let buffer = Buffer(64 + 2 * Address.capacity)
                let fresh = Socket()
                expectError(EINVAL) {
                    try deaf.accept(buffer, fresh, into: buffer.area, receiveLength: 0)
                }
                expectError(EFAULT) {
                    try listener.accept(buffer, fresh, into: buffer.area, receiveLength: 65)
                }
                for length in [-1, Int.max] {
                    expectError(EFAULT) {
                        try listener.accept(buffer, fresh, into: buffer.area, receiveLength: length)
                    }
                }
                expectError(EINVAL) {
                    try listener.accept(
                        buffer, try Socket(boundTo: .loopback()), into: buffer.area, receiveLength: 0)
                }
                try listener.accept(buffer, fresh, into: buffer.area, receiveLength: 64)
                let second = Buffer(2 * Address.capacity)
                expectError(EINVAL) {
                    try listener.accept(second, fresh, into: second.area, receiveLength: 0)
                }
                expectError(EALREADY) {
                    try listener.accept(buffer, Socket(), into: buffer.area, receiveLength: 0)
                }
                expectError(EINVAL) { try fresh.connect(second, to: try listener.localAddress) }
                #expect(buffer.isPending && collector.isSilent())
                listener.close()
                #expect(try #require(collector.next()).operation === buffer && collector.isSilent())
                expectError(EBADF) {
                    try listener.accept(second, Socket(), into: second.area, receiveLength: 0)
                }
            }
        }
    }

    @Suite("connect and disconnect") struct Connections {
        @Test(
            "connect, with and without first data", arguments: DriverKind.permitted,
            Address.loopbacks)
        func connect(kind: DriverKind, address: Address) throws {
            try withCollector(kind) { collector in
                let listener = try Socket.listener(on: address)
                try listener.setBlocking(true)
                let target = try listener.localAddress
                let socket = try Socket(boundTo: address)
                try socket.associate(with: collector, key: 3, driver: collector.driver)
                let connect = Buffer(0)
                try socket.connect(connect, to: target)
                let packet = try #require(collector.next())
                #expect(
                    packet.operation === connect && packet.bytes == 0 && packet.code == 0 && packet.key == 3)
                #expect(try socket.remoteAddress == target)
                let accepted = try Peer(try #require(try listener.acceptNow()))
                try socket.send(Buffer("works"))
                #expect(accepted.text(5) == "works")
                _ = collector.next()
                expectError(EISCONN) { try socket.connect(connect, to: target) }

                let eager = try Socket(boundTo: address)
                try eager.associate(with: collector, key: 4, driver: collector.driver)
                let data = Buffer(pattern(200_000))
                try eager.connect(data, to: target, firstData: data.content)
                let second = try Peer(try #require(try listener.acceptNow()))
                #expect(second.receive(200_000) == pattern(200_000))
                let sent = try #require(collector.next())
                #expect(sent.operation === data && sent.bytes == 200_000 && sent.code == 0)
            }
        }

        @Test("from no address in particular every one is reached", arguments: DriverKind.permitted)
        func fromAnywhere(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                for (here, there) in zip([Address.any(), .any6()], [Address.loopback(), .loopback6()])
                where Address.loopbacks.contains(there) {
                    let listener = try Socket.listener(on: here)
                    var target = there
                    target.port = try listener.localAddress.port
                    let socket = try Socket(boundTo: here)
                    // The port is chosen with the connection: so it can be one that another connection has.
                    #expect(try socket.localAddress == here && here.isAny && !there.isAny)
                    try socket.associate(with: collector, key: 3, driver: collector.driver)
                    let connect = Buffer(0)
                    try socket.connect(connect, to: target)
                    #expect(try #require(collector.next()).code == 0)
                    #expect(try socket.localAddress.host == there.host && socket.localAddress.port != 0)
                    #expect(try Socket.connected(to: target, from: here).remoteAddress == target)
                }
            }
        }

        @Test("connect: refused, not bound, to nowhere", arguments: DriverKind.permitted)
        func failures(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                // Held, or somebody else might listen there by then.
                let deaf = try Socket(boundTo: .loopback())
                defer { deaf.close() }
                let free = try deaf.localAddress
                let socket = try Socket(boundTo: .loopback())
                try socket.associate(with: collector, key: 3, driver: collector.driver)
                let connect = Buffer(0)
                try socket.connect(connect, to: free)
                let packet = try #require(collector.next())
                #expect(packet.operation === connect && packet.code == ECONNREFUSED)
                expectError(ENOTCONN) { try socket.send(Buffer("x")) }
                expectError(EINVAL) { try Socket.unbound().connect(connect, to: free) }
                expectError(EINVAL) { try Socket().connect(connect, to: free) }
                expectError(EINVAL) { try Socket.listener(on: .loopback()).connect(connect, to: free) }
                // A socket whose connect was refused may try again.
                let listener = try Socket.listener(on: .loopback())
                let target = try listener.localAddress
                try socket.connect(connect, to: target)
                #expect(try #require(collector.next()).code == 0 && collector.isSilent())
                socket.close()
                expectError(EBADF) { try socket.connect(connect, to: free) }
            }
        }

        @Test("a connect that nobody answers can be cancelled, and closed", arguments: DriverKind.permitted)
        func cancelConnect(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                // A full backlog leaves later clients without an answer.
                let listener = try Socket.listener(on: .loopback(), backlog: 0)
                let target = try listener.localAddress
                _ = try Peer(connectingTo: target)
                var pending: [(Socket, Buffer)] = []
                for _ in 0..<4 {
                    let socket = try Socket(boundTo: .loopback())
                    try socket.associate(with: collector, key: 3, driver: collector.driver)
                    let connect = Buffer(0)
                    try socket.connect(connect, to: target)
                    pending.append((socket, connect))
                }
                #expect(eventually(within: .milliseconds(50)) { collector.count == 4 } == false)
                while collector.next(within: .milliseconds(20)) != nil {}
                let (waiting, operation) = try #require(pending.first { $0.1.isPending })
                expectError(EALREADY) { try waiting.connect(Buffer(0), to: target) }
                expectError(ENOTCONN) { try waiting.send(Buffer("x")) }
                #expect(waiting.cancel(operation))
                #expect(try #require(collector.next()).code == ECANCELED)
                let (last, lastOperation) = try #require(pending.last { $0.1.isPending })
                last.close()
                let packet = try #require(collector.next())
                #expect(packet.operation === lastOperation && packet.code == ECANCELED)
                for (socket, _) in pending { socket.close() }
            }
        }

        @Test("disconnect comes after everything that was sent", arguments: DriverKind.permitted)
        func disconnect(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector, sendBuffer: 65_536)
                let receive = Buffer(8)
                try socket.receive(receive)
                let send = Buffer(pattern(1_500_000))
                try socket.send(send)
                let disconnect = Buffer(0)
                try socket.disconnect(disconnect)
                expectError(ESHUTDOWN) { try socket.send(Buffer("x")) }
                #expect(disconnect.isPending)
                #expect(peer.receive(1_500_000) == pattern(1_500_000) && peer.sawEnd)
                let packets = collector.next(2)
                #expect(packets.first?.operation === send && packets.first?.bytes == 1_500_000)
                #expect(packets.last?.operation === disconnect && packets.last?.code == 0)
                // It is the sending side's end only.
                #expect(receive.isPending)
                peer.send("bye")
                #expect(try #require(collector.next()).operation === receive && receive.text == "bye")
            }
        }

        @Test(
            "a disconnect for reuse waits for the other side, and makes the socket fresh",
            arguments: DriverKind.permitted)
        func reuse(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try Socket.listener(on: .loopback())
                try listener.associate(with: collector, key: 5, driver: collector.driver)
                let socket = Socket()
                try socket.associate(with: collector, key: 6, driver: collector.driver)
                for round in 0..<5 {
                    let accept = Buffer(16 + 2 * Address.capacity)
                    try listener.accept(accept, socket, into: accept.area, receiveLength: round % 2 * 16)
                    let peer = try Peer(connectingTo: listener.localAddress)
                    peer.send("round \(round)")
                    #expect(try #require(collector.next()).operation === accept)
                    if round % 2 == 0 {
                        let receive = Buffer(16)
                        try socket.receive(receive)
                        #expect(try #require(collector.next()).key == 6 && receive.text == "round \(round)")
                    }
                    let pending = Buffer(4)
                    try socket.receive(pending)
                    let disconnect = Buffer(0)
                    try socket.disconnect(disconnect, reuse: true)
                    #expect(peer.sawEnd)
                    #expect(collector.isSilent() && disconnect.isPending, "the peer has not closed yet")
                    expectError(ENOTCONN) { try socket.receive(Buffer(1)) }
                    expectError(ENOTCONN) { try socket.disconnect(Buffer(1)) }
                    expectError(ESHUTDOWN) { try socket.send(Buffer("x")) }
                    expectError(EINVAL) {
                        try listener.accept(Buffer(64), socket, into: Buffer(64).area, receiveLength: 0)
                    }
                    // What nobody reads any more is thrown away.
                    peer.send("1234" + String(repeating: "x", count: 10_000))
                    #expect(try #require(collector.next()).operation === pending && pending.text == "1234")
                    peer.socket.close()
                    let packet = try #require(collector.next())
                    #expect(packet.operation === disconnect && packet.code == 0 && packet.key == 6)
                    #expect(socket.descriptor == -1 && socket.connectTime == nil)
                    expectError(ENOTCONN) { try socket.receive(Buffer(1)) }
                }
            }
        }

        @Test("a disconnect for reuse of a connection that is reset is over, too; a cancelled one is not")
        func reuseAfterReset() throws {
            for kind in DriverKind.permitted {
                try withCollector(kind) { collector in
                    let (socket, peer) = try connection(collector)
                    let disconnect = Buffer(0)
                    try socket.disconnect(disconnect, reuse: true)
                    #expect(peer.sawEnd)
                    try peer.reset()
                    #expect(try #require(collector.next()).code == 0 && socket.descriptor == -1)

                    let (stubborn, silent) = try connection(collector)
                    try stubborn.disconnect(disconnect, reuse: true)
                    #expect(silent.sawEnd)
                    #expect(stubborn.cancel(disconnect))
                    #expect(try #require(collector.next()).code == ECANCELED)
                    let receive = Buffer(4)
                    try stubborn.receive(receive)
                    silent.send("well")
                    #expect(try #require(collector.next()).operation === receive)
                    try stubborn.disconnect(disconnect, reuse: true)
                    stubborn.close()
                    #expect(try #require(collector.next()).code == ECANCELED && collector.isSilent())
                }
            }
        }
    }
}
