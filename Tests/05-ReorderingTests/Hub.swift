import Contexts
import Glibc
import Kernel
import Reordering
import ReorderingPitfalls
import Stage
import Testing

@Suite("Chapter 05: the hub and its connections", .serialized)
struct Chapter05ReorderingHub {
    @Test(
        "every byte comes back, with one and four pending reads, one and two workers, of any size",
        arguments: DriverKind.permitted)
    func echo(driver: DriverKind) async throws {
        try await onAThread {
            for (workers, reads) in [(1, 1), (1, 4), (2, 1), (2, 4)] {
                for size in [64, 20_000] {
                    let hub = try makeHub(driver, reads: reads, workers: workers, capacity: 4_096)
                    let address = try hub.listen { _ in Echo() }
                    let report = try ClientLoad(
                        to: address, connections: 8, messageSize: size, duration: .seconds(20),
                        roundTripsEach: 20
                    ).run()
                    #expect(report.roundTrips == 160)
                    #expect(hub.stop())
                    let counters = hub.counters
                    #expect(counters.opened == 8 && counters.announced == 8)
                    #expect(counters.window.mostWaiting <= reads)
                    #expect(counters.chunks.inUse == 0)
                }
            }
        }
    }

    // I5.6
    @Test(
        "sends, a file with its head, and a chunk sent back leave in the order in which they were asked for",
        arguments: DriverKind.permitted)
    func order(driver: DriverKind) async throws {
        try await onAThread {
            let file = try TemporaryFile("the file")
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 2, capacity: 8)
            let connection = try hub.adopt(
                pair.server,
                handler: Scripted { chunk, connection in
                    try connection.send(Array("a longer one than a chunk, ".utf8))
                    try connection.transmit(file.file, offset: 4, head: Array("head+".utf8))
                    try connection.send(chunk)
                    try connection.transmit(file.file, length: 3)
                    try connection.send([])
                    connection.finish()
                })
            try pair.client.say("chunk")
            #expect(text(try pair.client.hearBytes(100)) == "a longer one than a chunk, head+filechunkthe")
            // This side has finished; the connection is still there for what the other side says.
            #expect(connection.closeReason == nil)
            pair.client.close()
            #expect(eventually { connection.closeReason == .ended })
            #expect(hub.stop())
        }
    }

    // I5.7
    @Test("a handler may give back in its last moment what it keeps", arguments: DriverKind.permitted)
    func lastMoment(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 2)
            try hub.adopt(pair.server, handler: Keeper())
            try pair.client.say("kept")
            #expect(eventually { hub.counters.traffic.bytesReceived == 4 })
            try pair.client.abort()
            // Nobody but the connection has the handler: it goes when the connection is over.
            #expect(eventually { hub.counters.released == 1 && hub.counters.chunks.inUse == 0 })
            #expect(hub.stop())
        }
    }

    /// Gives the chunks that it has kept back when it goes itself.
    private final class Keeper: StreamHandler, @unchecked Sendable {
        // One call at a time.
        private var kept: [Chunk] = []

        func received(_ chunk: Chunk, on connection: StreamConnection) {
            chunk.keep()
            kept.append(chunk)
        }

        deinit { for chunk in kept { chunk.giveBack() } }
    }

    // I5.6
    @Test(
        "what comes behind an open ticket waits for it; one that is given up is passed over",
        arguments: DriverKind.permitted)
    func tickets(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 1) { $0.maximumPendingSends = 4 }
            let connection = try hub.adopt(pair.server, handler: Sink())
            let (first, second) = (try connection.takeTicket(), try connection.takeTicket())
            try connection.send(Array("3".utf8))
            try connection.send(Array("2".utf8), ticket: second)
            // Two tickets and a send are pending; room for one more.
            #expect(throws: SystemError(ENOBUFS, attempted: "")) {
                try connection.send(Array("too long".utf8))
            }
            #expect(pair.client.unread == 0)
            let third = try connection.takeTicket()
            connection.finish()
            #expect(throws: SystemError(ESHUTDOWN, attempted: "")) { try connection.takeTicket() }
            #expect(throws: SystemError(ESHUTDOWN, attempted: "")) { try connection.send([0]) }
            connection.skip(first)
            #expect(text(try pair.client.hearBytes(2)) == "23")
            // Who has a ticket may still send after `finish`, and the end comes behind it.
            try connection.send(Array("4".utf8), ticket: third)
            #expect(text(try pair.client.hearBytes(5)) == "4")
            #expect(hub.stop())
        }
    }

    // I5.6
    @Test(
        "a chunk that goes back behind an open ticket leaves before the end is said",
        arguments: DriverKind.permitted)
    func endBehindReturned(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 2)
            let ticket = Guarded<SendTicket?>(nil)
            let handler = Scripted { chunk, connection in
                let taken = try connection.takeTicket()
                try connection.send(chunk)
                connection.finish()
                ticket.locked { $0 = taken }
            }
            let connection = try hub.adopt(pair.server, handler: handler)
            try pair.client.say("back")
            #expect(eventually { ticket.locked { $0 } != nil })
            // The answer completes in its post. Then nothing is posted or pending for a moment, and yet not all is sent.
            try connection.send(Array("answer,".utf8), ticket: ticket.locked { $0 })
            #expect(text(try pair.client.hearBytes(20)) == "answer,back")
            #expect(handler.events == ["opened", "received"])
            #expect(hub.stop())
        }
    }

    @Test("many sends from outside are told of with one packet, when they complete in their posts")
    func oneWakeUp() async throws {
        try await onAThread {
            let (pair, other) = (try Pair(), try Pair())
            let hub = try makeHub(.epoll, reads: 1, workers: 1) { $0.maximumPendingSends = 128 }
            let (isInside, mayGo) = (Gate(), Gate())
            let handler = Scripted()
            let connection = try hub.adopt(pair.server, handler: handler)
            try hub.adopt(
                other.server,
                handler: Scripted { _, _ in
                    isInside.open()
                    mayGo.pass()
                })
            try other.client.say("x")
            #expect(isInside.pass())
            for token in 1...100 { try connection.send([7], token: token) }
            #expect(handler.tokens.isEmpty && hub.port.queuedPackets == 1)
            mayGo.open()
            #expect(eventually { handler.tokens == Array(1...100) })
            #expect(try pair.client.hearBytes(100).count == 100)
            #expect(hub.stop())
        }
    }

    @Test("a token tells once when a send has been handed over", arguments: DriverKind.permitted)
    func tokens(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 1)
            let handler = Scripted()
            let connection = try hub.adopt(pair.server, handler: handler)
            for token in 1...5 { try connection.send(Array("some more".utf8), token: token) }
            // In any order: the completions of two sends may be two workers'.
            #expect(eventually { handler.tokens.sorted() == [1, 2, 3, 4, 5] })
            #expect(try pair.client.hearBytes(45).count == 45)
            #expect(handler.tokens.count == 5)
            #expect(hub.stop())
        }
    }

    @Test(
        "a client that does not read costs no more than the limit, and the handler is told",
        arguments: DriverKind.permitted)
    func limitOfSends(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 1, capacity: 65_536) { $0.maximumPendingSends = 4 }
            let connection = try hub.adopt(pair.server, handler: Sink())
            var refusal: SystemError?
            for _ in 0..<10_000 where refusal == nil {
                do throws(SystemError) {
                    try connection.send([UInt8](repeating: 1, count: 65_536))
                } catch { refusal = error }
            }
            #expect(refusal?.code == ENOBUFS)
            #expect(hub.counters.chunks.inUse <= 5)
            #expect(throws: SystemError(ENOBUFS, attempted: "")) {
                try connection.send([UInt8](repeating: 1, count: 5 * 65_536))
            }
            // When the client reads, it goes on.
            _ = try pair.client.hearBytes(4 * 65_536)
            #expect(eventually { (try? connection.send([1])) != nil })
            pair.client.close()
            #expect(hub.stop())
            #expect(hub.counters.chunks.inUse == 0)
        }
    }

    // I5.5
    @Test(
        "kept chunks hold the client back, and are good until they are given back",
        arguments: DriverKind.permitted)
    func kept(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 3)
            let kept = Guarded<[Chunk]>([])
            let sink = Sink { chunk in
                chunk.keep()
                kept.locked { $0.append(chunk) }
            }
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,two,six,ten,")
            #expect(eventually { sink.received.count == 12 && pair.server.unread == 4 })
            // Kept twice: given back when both have given it back.
            let second = kept.locked { $0[1] }
            second.keep()
            second.giveBack()
            #expect(text(Array(second.contents)) == "two,")
            #expect(pair.server.unread == 4)
            second.giveBack()
            #expect(eventually { sink.received.count == 16 })
            #expect(text(kept.locked { Array($0[0].contents) }) == "one,")
            #expect(hub.counters.chunks.inUse == 3)
            // Given back after the end, they go home.
            pair.client.close()
            let left = kept.locked { Set($0.map { ObjectIdentifier($0) }).count }
            #expect(left == 3)
            #expect(hub.counters.announced == 0)
            // One reads no more: the end is seen as soon as a read is pending again.
            kept.locked { $0[0] }.giveBack()
            #expect(sink.over.pass())
            for chunk in kept.locked({ [$0[2], $0[3]] }) { chunk.giveBack() }
            #expect(eventually { hub.counters.chunks.inUse == 0 })
            #expect(hub.stop())
        }
    }

    // I5.5
    @Test(
        "a chunk sent back again before it has gone ends the connection, and that is the reason",
        arguments: DriverKind.permitted)
    func sentTwice(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            try pair.server.setBufferSizes(send: 4_096)
            let hub = try makeHub(driver, reads: 2, capacity: 65_536)
            let sink = Scripted { chunk, connection in
                // The client does not read, so whatever comes behind this stays where it is.
                try connection.send([UInt8](repeating: 1, count: 64 * 65_536))
                for _ in 0..<2 { try connection.send(chunk) }
            }
            let connection = try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one")
            #expect(eventually { sink.events.count == 3 })
            #expect(sink.events == ["opened", "received", "closed: \(CloseReason.bug(EALREADY))"])
            #expect(connection.closeReason == .bug(EALREADY))
            #expect(hub.stop())
            #expect(hub.counters.chunks.inUse == 0)
        }
    }

    // I5.6
    @Test("chunks that go back behind an open ticket find an end of room", arguments: DriverKind.permitted)
    func sentBehindATicket(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 2)
            let room = 64 + 2
            let refused = Counter()
            let sink = Scripted { chunk, connection in
                _ = try connection.takeTicket()
                do {
                    for _ in 0...room { try connection.send(chunk) }
                } catch let error as SystemError where error.code == ENOBUFS {
                    refused.add()
                }
                connection.close()
            }
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one")
            #expect(eventually { sink.events.last?.hasPrefix("closed") == true })
            #expect(refused.value == 1)
            #expect(hub.stop())
            #expect(hub.counters.chunks.inUse == 0)
        }
    }

    // I5.2
    @Test("what was sent before a reset is received, and then the reset", arguments: DriverKind.permitted)
    func failureInTurn(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let gate = Gate()
            let hub = try makeHub(driver, reads: 3) { $0.probe = holding(0, until: 2, gate) }
            let sink = Sink()
            let connection = try hub.adopt(pair.server, handler: sink)
            try pair.client.say("bye.")
            #expect(eventually { pair.server.unread == 0 })
            try pair.client.setAbortiveClose()
            pair.client.close()
            #expect(sink.over.pass())
            #expect(text(sink.received) == "bye.")
            #expect(sink.reason == .reset)
            #expect(connection.window.early > 0)
            #expect(hub.stop())
        }
    }

    // I5.7
    @Test("a client that is gone when this side finishes has reset", arguments: DriverKind.permitted)
    func goneBeforeFinish(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let client = pair.client
            // One read, and its chunk is here: nothing is pending that could tell.
            let hub = try makeHub(driver, reads: 1)
            let handler = Scripted { _, connection in
                try client.setAbortiveClose()
                client.close()
                connection.finish()
            }
            try hub.adopt(pair.server, handler: handler)
            try client.say("bye.")
            #expect(eventually { handler.events.count == 3 })
            #expect(handler.events == ["opened", "received", "closed: reset"])
            #expect(hub.stop())
        }
    }

    // I5.2, I5.7
    @Test(
        "closed in the middle: nothing more is received, and the end is the last call",
        arguments: DriverKind.permitted)
    func closing(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 3)
            let handler = Scripted { _, connection in connection.close(.outOfResources) }
            let connection = try hub.adopt(pair.server, handler: handler)
            try pair.client.say("one,two,six,")
            #expect(eventually { handler.events.last == "closed: out of resources" })
            #expect(handler.events == ["opened", "received", "closed: out of resources"])
            #expect(throws: SystemError(EBADF, attempted: "")) { try connection.send([1]) }
            connection.close()
            connection.finish()
            #expect(hub.stop())
            #expect(handler.events.count == 3)
            #expect(hub.counters.reasons == [.outOfResources: 1])
        }
    }

    // I5.7
    @Test("the end is announced when nothing is under way any more", arguments: DriverKind.permitted)
    func endIsLast(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let (isTaken, goOn) = (Gate(), Gate())
            var probe = StreamProbe()
            probe.arrived = { _ in
                isTaken.open()
                goOn.pass()
            }
            let hub = try makeHub(driver, reads: 1) { $0.probe = probe }
            let sink = Sink()
            let connection = try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,")
            #expect(isTaken.pass())
            // A worker has the read's packet in its hands, and another one is free.
            connection.close()
            #expect(!sink.over.pass(within: .milliseconds(200)))
            #expect(hub.counters.chunks.inUse == 1)
            goOn.open()
            #expect(sink.over.pass())
            #expect(hub.counters.chunks.inUse == 0)
            #expect(sink.received.isEmpty)
            #expect(hub.stop())
        }
    }

    @Test(
        "a hub connects: both ends hear of it, and nobody listening is a reason",
        arguments: DriverKind.permitted)
    func connecting(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 2)
            let addresses = try Address.loopbacks.map { try hub.listen(on: $0) { _ in Echo() } }
            let address = addresses[0]
            let client = Scripted()
            let connection = try hub.connect(to: address, handler: client)
            #expect(eventually { client.events.first == "opened" })
            #expect(hub.find(connection.id) === connection)
            try connection.send(Array("hello".utf8))
            #expect(eventually { client.text == "hello" })
            connection.finish()
            #expect(eventually { client.events.last == "closed: ended" })
            // Nobody listens there any more.
            let listener = try Socket.listener(on: .loopback())
            let nobody = try listener.localAddress
            listener.close()
            let refused = Scripted()
            try hub.connect(to: nobody, handler: refused)
            #expect(eventually { !refused.events.isEmpty })
            #expect(refused.events == ["closed: refused"])
            #expect(hub.find(connection.id) == nil)
            #expect(hub.stop())
            #expect(throws: SystemError(EBADF, attempted: "")) {
                try hub.connect(to: address, handler: refused)
            }
            #expect(throws: SystemError(EBADF, attempted: "")) { try hub.listen { _ in Echo() } }
        }
    }

    @Test("finished before it stands, a connection opens and then ends", arguments: DriverKind.permitted)
    func finishBeforeOpened(driver: DriverKind) async throws {
        try await onAThread {
            let server = try makeHub(driver, reads: 1)
            let address = try server.listen { _ in Echo() }
            // The only worker is held: nobody takes the connect's packet before `finish`.
            let pair = try Pair()
            let (isHeld, goOn) = (Gate(), Gate())
            let client = try makeHub(driver, reads: 1, workers: 1)
            try client.adopt(
                pair.server,
                handler: Scripted { _, _ in
                    isHeld.open()
                    goOn.pass()
                })
            try pair.client.say("hold")
            #expect(isHeld.pass())
            let handler = Scripted()
            try client.connect(to: address, handler: handler).finish()
            goOn.open()
            #expect(eventually { handler.events.count == 2 })
            #expect(handler.events == ["opened", "closed: ended"])
            #expect(client.stop() && server.stop())
        }
    }

    @Test("one client too many is closed at once, and counted", arguments: DriverKind.permitted)
    func tooMany(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 2) { $0.maximumConnections = 2 }
            let address = try hub.listen { _ in Echo() }
            // The reset may be quicker than the client's look at its new connection.
            let clients = (0..<3).compactMap { _ in try? Socket.connected(to: address) }
            #expect(eventually { hub.counters.refused == 1 && hub.counters.opened == 2 })
            var echoes = 0
            for client in clients where (try? client.say("hello")) != nil {
                if let heard = try? client.hearBytes(5), text(heard) == "hello" { echoes += 1 }
            }
            #expect(echoes == 2)
            #expect(hub.stop())
        }
    }

    @Test("a listen that fails leaves no listener, and its port is free", arguments: DriverKind.permitted)
    func listenFails(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 2)
            let probe = try Socket.listener(on: .loopback())
            let address = try probe.localAddress
            probe.close()
            hub.port.close()
            #expect(throws: SystemError(EBADF, attempted: "")) { try hub.listen(on: address) { _ in Echo() } }
            #expect(hub.listening.isEmpty)
            try Socket.listener(on: address).close()
            #expect(hub.stop())
        }
    }

    @Test(
        "a listen without a thread to look after it leaves no listener, and nothing pending",
        .enabled(if: Resources.canBecomeAnotherUser, "needs rights to become a user without rights"),
        .disabled(if: isSanitized, "a sanitizer has a thread of its own"),
        arguments: DriverKind.permitted.map(\.rawValue))
    func listenWithoutAThread(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = try #require(DriverKind(rawValue: driver))
            let hub = try makeHub(kind, reads: 2)
            let probe = try Socket.listener(on: .loopback())
            let address = try probe.localAddress
            probe.close()
            var limit = rlimit(rlim_cur: 1, rlim_max: 1)
            setrlimit(__rlimit_resource_t(__RLIMIT_NPROC.rawValue), &limit)
            try #require(setgid(65_534) == 0 && setuid(65_534) == 0)
            #expect(throws: SystemError(EAGAIN, attempted: "")) {
                try hub.listen(on: address) { _ in Echo() }
            }
            #expect(hub.listening.isEmpty)
            // No accept is left behind that would take its clients.
            #expect(throws: SystemError(ECONNREFUSED, attempted: "")) { try Socket.connected(to: address) }
            #expect(hub.stop())
        }
    }

    @Test("no limit for connections is none for their chunks", arguments: DriverKind.permitted)
    func noLimit(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 2) { $0.maximumConnections = .max }
            let pair = try Pair()
            try hub.adopt(pair.server, handler: Echo())
            try pair.client.say("hello")
            #expect(text(try pair.client.hearBytes(5)) == "hello")
            #expect(hub.stop())
        }
    }

    @Test("impossible options are refused")
    func options() {
        for change: (inout StreamHub.Options) -> Void in [
            { $0.pendingReads = 0 }, { $0.pendingReads = 65 }, { $0.chunkCapacity = 0 },
            { $0.maximumPendingSends = 0 }, { $0.maximumConnections = 0 }, { $0.workers = 0 },
        ] {
            var options = StreamHub.Options()
            change(&options)
            #expect(throws: SystemError(EINVAL, attempted: "")) { try StreamHub(options) }
        }
    }

    @Test(
        "numbers on the wire: packets of three senders over four connections each come out in order",
        arguments: DriverKind.permitted)
    func collector(driver: DriverKind) async throws {
        try await onAThread {
            let got = Guarded<[UInt32: [UInt64]]>([:])
            let collector = PacketCollector(capacity: 64) { packet in
                got.locked { $0[packet.client, default: []].append(packet.value) }
            }
            // Five bytes in a chunk: no packet is whole in one.
            let hub = try makeHub(driver, reads: 3, workers: 4, capacity: 5)
            let address = try hub.listen { _ in collector.handler() }
            let wrong = Counter()
            inThreads(3, named: "sender") { sender in
                do { try send(1_000, as: UInt32(sender), to: address) } catch { wrong.add() }
            }
            #expect(wrong.value == 0)
            for sender in UInt32(0)..<3 { #expect(got.locked { $0[sender] } == Array(0..<1_000)) }
            #expect(collector.counters == (3, 0))
            collector.forget(1)
            #expect(collector.counters.clients == 2)
            #expect(hub.stop())
        }
    }

    // I5.2
    @Test("one worker at a time is in front of a sender's window")
    func collectorIsLocked() async throws {
        try await onAThread {
            // The first in front of the window stays there until a second is, too.
            let (isInFront, second) = (Counter(), Gate(count: 2))
            let cameBetween = Guarded<Bool?>(nil)
            let collector = PacketCollector(
                capacity: 8,
                placing: { _ in
                    second.open()
                    guard isInFront.add() == 1 else { return }
                    let passed = second.pass(within: .milliseconds(200))
                    cameBetween.locked { $0 = passed }
                },
                delivered: { _ in })
            let hub = try makeHub(nil, reads: 1, workers: 3, capacity: 64)
            let address = try hub.listen { _ in collector.handler() }
            let lanes = try (0..<2).map { _ in try Socket.connected(to: address) }
            for (number, lane) in lanes.enumerated() {
                try lane.say(
                    NumberedPacket(client: 1, number: SequenceNumber(UInt32(number)), value: 0).bytes)
            }
            for lane in lanes { #expect(try lane.hearBytes(4).count == 4) }
            #expect(cameBetween.locked { $0 } == false)
            #expect(hub.stop())
        }
    }

    /// Sends packets in groups of up to 40, each over any of four connections, and waits until all have come out.
    private func send(_ count: Int, as client: UInt32, to address: Address) throws {
        var random = Random(seed: UInt64(client) + 5)
        let lanes = try (0..<4).map { _ in try Socket.connected(to: address) }
        var next = 0
        while next < count {
            let end = min(count, next + 1 + Int(random.next() % 40))
            var packets = (next..<end).map {
                NumberedPacket(client: client, number: SequenceNumber(UInt32($0)), value: UInt64($0)).bytes
            }
            if random.next() % 4 == 0 { packets.append(packets[0]) }
            while !packets.isEmpty {
                let packet = packets.remove(at: Int(random.next() % UInt64(packets.count)))
                try lanes[Int(random.next() % 4)].say(packet)
            }
            // The answers tell how far it has come; one of the connections has heard of the end of the group.
            var expected: UInt32 = 0
            let hasCome = eventually {
                for lane in lanes {
                    while let answer = try? lane.hearBytes(4, within: .zero), answer.count == 4 {
                        let number = answer.withUnsafeBytes {
                            UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self))
                        }
                        expected = max(expected, number)
                    }
                }
                return expected == UInt32(end)
            }
            guard hasCome else { throw SystemError(ETIMEDOUT, attempted: "send packets") }
            next = end
        }
    }

    // I5.3
    @Test(
        "a sender too far ahead, and one sender too many, lose their connections",
        arguments: DriverKind.permitted)
    func collectorLimits(driver: DriverKind) async throws {
        try await onAThread {
            let got = Guarded<[UInt64]>([])
            let collector = PacketCollector(capacity: 4, maximumClients: 1) { packet in
                got.locked { $0.append(packet.value) }
            }
            let hub = try makeHub(driver, reads: 2, capacity: 64)
            let address = try hub.listen { _ in collector.handler() }
            func packet(_ client: UInt32, _ number: UInt32) -> [UInt8] {
                NumberedPacket(client: client, number: SequenceNumber(number), value: UInt64(number)).bytes
            }
            let first = try Socket.connected(to: address)
            try first.say(packet(9, 3))
            #expect(try first.hearBytes(4) == [0, 0, 0, 0])
            #expect(collector.counters == (1, 1))
            let ahead = try Socket.connected(to: address)
            try ahead.say(packet(9, 4))
            #expect(try ahead.hearBytes(1).isEmpty)
            let other = try Socket.connected(to: address)
            try other.say(packet(8, 0))
            #expect(try other.hearBytes(1).isEmpty)
            // Nothing of that disturbs those who keep to the limits.
            try first.say(packet(9, 1) + packet(9, 0) + packet(9, 2))
            #expect(eventually { got.locked { $0 } == [0, 1, 2, 3] })
            #expect(hub.stop())
        }
    }
}

/// A handler that does what a test says, and keeps what it hears.
final class Scripted: StreamHandler {
    private let heard = Guarded<(events: [String], tokens: [Int], bytes: [UInt8])>(([], [], []))
    private let script: @Sendable (Chunk, StreamConnection) throws -> Void

    init(_ script: @escaping @Sendable (Chunk, StreamConnection) throws -> Void = { _, _ in }) {
        self.script = script
    }

    var events: [String] { heard.locked { $0.events } }
    var tokens: [Int] { heard.locked { $0.tokens } }
    var text: String { heard.locked { String(decoding: $0.bytes, as: UTF8.self) } }

    private func note(_ event: String) { heard.locked { $0.events.append(event) } }

    func opened(_ connection: StreamConnection) { note("opened") }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        heard.locked { $0.bytes += chunk.contents }
        note("received")
        do { try script(chunk, connection) } catch { note("\(error)") }
    }

    func sent(_ token: Int, on connection: StreamConnection) { heard.locked { $0.tokens.append(token) } }

    func closed(_ connection: StreamConnection, _ reason: CloseReason) { note("closed: \(reason)") }
}

/// A file with a text in it, gone when the last reference goes.
private final class TemporaryFile: @unchecked Sendable {
    let file: File
    private let path: String

    init(_ text: String) throws {
        path = "/tmp/reordering-\(getpid())-\(UInt.random(in: 0..<1_000_000)).txt"
        try writeFile(path, text)
        file = try File(path)
    }

    deinit { unlink(path) }
}
