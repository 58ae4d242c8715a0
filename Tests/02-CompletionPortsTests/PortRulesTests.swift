import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// The rules that a port keeps, as far as operations are concerned. Rules 1, 2, 4 and 5 are the waiting workers'.
@Suite(.serialized) struct Chapter02CompletionPortsRules {
    // I2.1
    @Test(
        "I2.1: every accepted post brings one packet, whatever becomes of it, and never two",
        arguments: DriverKind.permitted)
    func onePacketEach(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pairs = try Pair.several(5)
            for (key, pair) in pairs.enumerated() { try port.associate(pair.server, key: UInt(key)) }
            var seen: [ObjectIdentifier: Int] = [:]
            var codes: [UInt: Int32] = [:]
            let requests = (0..<6).map { Request($0) }
            let send = requests[5]
            try pairs[0].client.say("there already")
            for (key, pair) in pairs.enumerated() {
                try pair.server.receive(requests[key], into: requests[key].memory)
            }
            try pairs[0].server.send(send, from: UnsafeRawBufferPointer(send.memory))
            try pairs[1].client.say("later")
            try pairs[2].client.abort()
            complaints.expect(pairs[3].server.cancel(requests[3]), "something to cancel")
            pairs[4].server.close()
            for _ in requests {
                let packet = try port.next()
                seen[ObjectIdentifier(packet.operation!), default: 0] += 1
                if packet.operation !== send { codes[packet.key] = packet.errorCode }
            }
            complaints.expect(port.hasNothingMore, "no packet more than operations")
            complaints.equal(seen.count, 6, "operations")
            complaints.expect(seen.values.allSatisfy { $0 == 1 }, "one packet each: \(seen.values)")
            complaints.equal(codes, [0: 0, 1: 0, 2: ECONNRESET, 3: ECANCELED, 4: ECANCELED])
        }
    }

    // I2.2
    @Test(
        "I2.2: what came before a post leaves before it, although no worker has asked the port since",
        arguments: DriverKind.permitted)
    func queuedBeforeAPost(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            let listener = try Socket.listener(on: .loopback())
            try port.associate(pair.server, key: 1)
            try port.associate(listener, key: 2)
            let (receive, send) = (Request(), Request())
            let accept = Request(room: 2 * Address.capacity)
            try pair.server.receive(receive, into: receive.memory)
            try listener.accept(accept, Socket(), into: accept.memory, receiveLength: 0)
            try port.post(key: 3)
            try pair.client.say("data")
            try port.post(key: 4)
            let client = try Socket.connected(to: try listener.localAddress)
            try port.post(key: 5)
            try pair.server.send(send, from: UnsafeRawBufferPointer(send.memory))
            try port.post(key: 6)
            let keys = try (0..<7).map { _ in try port.next().key }
            complaints.equal(keys, [3, 1, 4, 2, 5, 1, 6])
            withExtendedLifetime(client) {}
        }
    }

    @Test(
        "I2.1: one packet each, for thousands of receives that are cancelled and closed while data comes",
        arguments: DriverKind.permitted)
    func onePacketEachRacing(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver, concurrency: 2)
            let packets = Counter()
            let posted = Counter()
            let twice = Counter()
            let group = try WorkerGroup(2, on: port) { packet, _ in
                packets.add()
                if packet.operation!.offset != 0 { twice.add() }
                packet.operation!.offset = 1
            }
            for round in 0..<300 {
                let pair = try Pair()
                try port.associate(pair.server, key: UInt(round))
                for _ in 0..<8 {
                    let request = Request(room: 1)
                    try pair.server.receive(request, into: request.memory)
                    posted.add()
                }
                let talker = startThread("talker") { try? pair.client.say("abc") }
                if round % 3 == 0 { pair.server.cancel() }
                if round % 3 == 1 { try pair.client.shutDownSending() }
                pair.server.close()
                talker.join()
            }
            complaints.expect(eventually { packets.value == posted.value }, "\(packets.value) packets")
            group.stop()
            complaints.equal(packets.value, posted.value, "packets")
            complaints.equal(twice.value, 0, "operations that came twice")
        }
    }

    // I2.4
    @Test(
        "I2.4: a handle belongs to one port, once, and a pending operation is not posted again",
        arguments: DriverKind.permitted)
    func once(driver: DriverKind) throws {
        try verify { complaints in
            let ports = [try CompletionPort.on(driver), try CompletionPort.on(driver)]
            let pair = try Pair()
            try ports[0].associate(pair.server, key: 1)
            for (index, port) in ports.enumerated() {
                complaints.refused(EINVAL, "associating again with port \(index)") { () throws(SystemError) in
                    try port.associate(pair.server, key: 2)
                }
            }
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            complaints.refused(EALREADY, "posting what is pending") { () throws(SystemError) in
                try pair.server.send(request, from: UnsafeRawBufferPointer(request.memory))
            }
            try pair.client.say("one")
            let packet = try ports[0].next()
            complaints.expect(packet.key == 1 && packet.bytes == 3, "the first key, the first result")
            complaints.expect(ports[0].hasNothingMore && ports[1].hasNothingMore, "nothing else anywhere")
            let closed = try Pair()
            closed.server.close()
            complaints.refused(EBADF, "associating a closed handle") { () throws(SystemError) in
                try ports[0].associate(closed.server, key: 3)
            }
        }
    }

    @Test(
        "receives are filled, and sends leave, in the order they were posted",
        arguments: DriverKind.permitted)
    func order(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let receives = (0..<40).map { Request($0, room: 4) }
            for request in receives { try pair.server.receive(request, into: request.memory) }
            let numbers = (0..<40).map { String(1000 + $0) }
            // In pieces that do not fit the receives.
            var rest = numbers.joined()[...]
            while !rest.isEmpty {
                try pair.client.say(String(rest.prefix(28)))
                rest = rest.dropFirst(28)
            }
            for number in 0..<40 {
                let packet = try port.next()
                guard let request = packet.operation as? Request else { return complaints.add("no request") }
                complaints.equal(request.number, number, "the packet in place \(number)")
                complaints.equal(request.text(packet.bytes), numbers[number])
            }
            let sends = (0..<40).map { Request($0, room: 4) }
            for request in sends {
                request.memory.copyBytes(from: Array(numbers[request.number].utf8))
                try pair.server.send(request, from: UnsafeRawBufferPointer(request.memory))
            }
            for number in 0..<40 {
                complaints.equal((try port.next().operation as? Request)?.number, number, "the send's packet")
            }
            complaints.equal(try pair.client.hear(160), numbers.joined())
        }
    }

    @Test(
        "sends keep their order also when the socket takes nothing for a while",
        arguments: DriverKind.permitted)
    func slowReader(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try pair.server.setBufferSizes(send: 65_536)
            try port.associate(pair.server, key: 1)
            let size = 500_000
            let sends = (0..<20).map { Request($0, room: size) }
            for request in sends {
                memset(request.memory.baseAddress!, 97 + Int32(request.number), size)
                try pair.server.send(request, from: UnsafeRawBufferPointer(request.memory))
            }
            complaints.expect(sends.last!.isPending, "more than the socket takes at once")
            let reader = startThread("reader") {
                for number in 0..<20 {
                    let text = (try? pair.client.hear(size)) ?? ""
                    let wanted = String(repeating: Character(Unicode.Scalar(UInt8(97 + number))), count: size)
                    complaints.expect(text == wanted, "the bytes of send \(number)")
                }
            }
            for number in 0..<20 {
                let packet = try port.next()
                complaints.equal(
                    (packet.operation as? Request)?.number, number, "the packet in place \(number)")
                complaints.equal(packet.bytes, size, "a send is whole")
            }
            reader.join()
        }
    }

    @Test(
        "the end of the stream completes the receives behind the data, with 0 bytes, in order",
        arguments: DriverKind.permitted)
    func endOfStream(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let receives = (0..<5).map { Request($0) }
            for request in receives { try pair.server.receive(request, into: request.memory) }
            try pair.client.say("the last")
            try pair.client.shutDownSending()
            for number in 0..<5 {
                let packet = try port.next()
                complaints.equal((packet.operation as? Request)?.number, number)
                complaints.equal(packet.bytes, number == 0 ? 8 : 0, "bytes of receive \(number)")
                complaints.equal(packet.errorCode, 0)
            }
            // One that is posted later completes as well; and the other direction still works.
            try pair.server.receive(receives[0], into: receives[0].memory)
            complaints.equal(try port.next().bytes, 0)
            receives[1].memory.copyBytes(from: Array("bye".utf8))
            let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(receives[1].memory)[..<3])
            try pair.server.send(receives[1], from: bytes)
            complaints.equal(try port.next().bytes, 3)
            complaints.equal(try pair.client.hear(3), "bye")
        }
    }

    @Test(
        "a zero-byte receive completes when there is something to read, and takes nothing",
        arguments: DriverKind.permitted)
    func zeroBytes(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let notice = Request(1)
            let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            let receive = Request(2)
            try pair.server.receive(notice, into: nothing)
            complaints.expect(port.hasNothingMore && notice.isPending, "pending while there is nothing")
            try pair.client.say("data")
            // Twice: the second finds the data there already.
            for _ in 0..<2 {
                let packet = try port.next()
                complaints.expect(packet.operation === notice && packet.bytes == 0, "the notice")
                complaints.equal(packet.errorCode, 0)
                try pair.server.receive(notice, into: nothing)
            }
            complaints.expect(try port.next().operation === notice, "and a third time")
            try pair.server.receive(receive, into: receive.memory)
            let packet = try port.next()
            complaints.equal(receive.text(packet.bytes), "data", "what nobody had taken")
            try pair.server.receive(notice, into: nothing)
            complaints.expect(port.hasNothingMore, "pending again")
            try pair.client.shutDownSending()
            let end = try port.next()
            complaints.expect(end.operation === notice && end.bytes == 0 && end.errorCode == 0, "the end")
        }
    }

    @Test(
        "an accept without first data completes at connect, with both addresses",
        arguments: DriverKind.permitted, Address.loopbacks)
    func acceptAtConnect(driver: DriverKind, address: Address) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let listener = try Socket.listener(on: address)
            try port.associate(listener, key: 5)
            let accept = Request(room: 2 * Address.capacity)
            let accepted = Socket()
            try listener.accept(accept, accepted, into: accept.memory, receiveLength: 0)
            let client = try Socket.connected(to: try listener.localAddress)
            let packet = try port.next()
            complaints.expect(packet.operation === accept && packet.key == 5, "the listener's key")
            let buffer = AcceptBuffer(UnsafeRawBufferPointer(accept.memory), receiveLength: 0)
            complaints.equal(buffer.local, try listener.localAddress)
            complaints.equal(buffer.remote, try client.localAddress)
            complaints.equal(try accepted.remoteAddress, try client.localAddress)
        }
    }

    @Test(
        "an accept with room for data completes at the first data; a silent client's time is told",
        arguments: DriverKind.permitted)
    func acceptWithData(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let listener = try Socket.listener(on: .loopback())
            try port.associate(listener, key: 5)
            let accept = Request(room: 32 + 2 * Address.capacity)
            let accepted = Socket()
            complaints.expect(accepted.connectTime == nil, "no connection, no time")
            try listener.accept(accept, accepted, into: accept.memory, receiveLength: 32)
            let client = try Socket.connected(to: try listener.localAddress)
            complaints.expect(port.hasNothingMore, "a client that says nothing holds the accept")
            complaints.expect(
                eventually { (accepted.connectTime ?? .zero) > .milliseconds(5) }, "the time it has held it")
            try client.say("hello")
            let packet = try port.next()
            complaints.expect(packet.operation === accept && packet.key == 5, "the listener's key")
            let buffer = AcceptBuffer(UnsafeRawBufferPointer(accept.memory), receiveLength: 32)
            complaints.equal(String(decoding: buffer.firstData(packet.bytes), as: UTF8.self), "hello")
            complaints.equal(buffer.local, try listener.localAddress)
            complaints.equal(buffer.remote, try client.localAddress)
            // The connection has no port yet: it gets its own key.
            try port.associate(accepted, key: 6)
            let receive = Request()
            try accepted.receive(receive, into: receive.memory)
            try client.say("more")
            complaints.equal(try port.next().key, 6)
        }
    }

    @Test(
        "I2.1: cancelling asks and the packet tells; the others stay pending, in their order",
        arguments: DriverKind.permitted)
    func cancelling(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let receives = (0..<4).map { Request($0, room: 1) }
            for request in receives { try pair.server.receive(request, into: request.memory) }
            // The head, which the driver has in hand, and one behind it.
            for number in [0, 2] {
                complaints.expect(pair.server.cancel(receives[number]), "something to cancel")
                let packet = try port.next()
                complaints.expect(packet.operation === receives[number], "the packet of \(number)")
                complaints.equal(packet.errorCode, SystemError.cancelled)
            }
            complaints.expect(port.hasNothingMore, "the others are pending")
            try pair.client.say("ab")
            for (number, text) in [(1, "a"), (3, "b")] {
                let packet = try port.next()
                complaints.expect(packet.operation === receives[number], "the packet of \(number)")
                complaints.equal(receives[number].text(packet.bytes), text)
            }
            complaints.expect(!pair.server.cancel(), "nothing to cancel is no error")
            // What has completed cannot be cancelled: its packet says so.
            try pair.server.receive(receives[0], into: receives[0].memory)
            try pair.server.receive(receives[1], into: receives[1].memory)
            try pair.client.say("cd")
            var packet = try port.next()
            if port.queuedPackets == 1 { complaints.expect(!pair.server.cancel(), "queued: too late") }
            complaints.equal((packet.operation as? Request)?.text(packet.bytes), "c")
            packet = try port.next()
            complaints.expect(packet.errorCode == 0, "the packet of what had completed")
        }
    }

    @Test(
        "I2.1: closing a handle completes everything that is pending on it as cancelled",
        arguments: DriverKind.permitted)
    func closing(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            let listener = try Socket.listener(on: .loopback())
            try pair.server.setBufferSizes(send: 4096)
            try pair.client.setBufferSizes(receive: 4096)
            try port.associate(pair.server, key: 1)
            try port.associate(listener, key: 2)
            for number in 0..<3 {
                let receive = Request(number)
                try pair.server.receive(receive, into: receive.memory)
                let send = Request(number, room: 1 << 20)
                try pair.server.send(send, from: UnsafeRawBufferPointer(send.memory))
                let accept = Request(number, room: 8 + 2 * Address.capacity)
                // With and without first data.
                try listener.accept(accept, Socket(), into: accept.memory, receiveLength: 8 * (number % 2))
            }
            pair.server.close()
            listener.close()
            pair.server.close()
            var kinds: [Operation: Int] = [:]
            for _ in 0..<9 {
                let packet = try port.next()
                complaints.equal(packet.errorCode, SystemError.cancelled)
                kinds[packet.operation!.kind, default: 0] += 1
            }
            complaints.equal(kinds, [.receive: 3, .send: 3, .accept: 3])
            complaints.expect(port.hasNothingMore, "and no packet for the close itself")
        }
    }

    @Test(
        "I2.9: closing a port wakes every waiter, at once", arguments: DriverKind.permitted,
        [1, 2, 4])
    func closedForAll(driver: DriverKind, concurrency: Int) throws {
        try verify { complaints in
            for _ in 0..<20 {
                let port = try CompletionPort.on(driver, concurrency: concurrency)
                let closed = Counter()
                let threads = (0..<4).map { index in
                    startThread("waiter \(index)") {
                        if case .closed = port.dequeue(timeout: Gate.patience) { closed.add() }
                    }
                }
                complaints.expect(eventually { port.workers.waiting == 4 }, "four who wait")
                let before = monotonicNanoseconds()
                complaints.expect(port.close().isEmpty, "nothing was left")
                for thread in threads { thread.join() }
                let needed = Duration.nanoseconds(monotonicNanoseconds() - before)
                complaints.equal(closed.value, 4, "woken")
                complaints.expect(needed < .seconds(2), "at once, not after \(needed)")
            }
        }
    }

    // I2.9
    @Test(
        "I2.9: what is queued still comes, then the end; what comes later is dropped and counted",
        arguments: DriverKind.permitted)
    func closedPort(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let late = Request()
            try pair.server.receive(late, into: late.memory)
            for number in 0..<5 { try port.post(key: UInt(number)) }
            complaints.expect(port.close().isEmpty, "everything stays in the queue")
            for number in 0..<5 { complaints.equal(try port.next().key, UInt(number)) }
            for _ in 0..<2 {
                guard case .closed = port.dequeue() else { return complaints.add("not closed") }
            }
            var batch = PacketBatch()
            complaints.equal(port.dequeue(into: &batch), .closed)
            complaints.refused(EBADF, "posting to a closed port") { () throws(SystemError) in
                try port.post()
            }
            complaints.refused(EBADF, "associating with a closed port") { () throws(SystemError) in
                try port.associate(try Pair().client, key: 2)
            }
            pair.server.close()
            complaints.expect(eventually { port.droppedPackets == 1 }, "the late packet is counted")
            complaints.expect(!late.isPending, "and its operation is over")
            complaints.expect(port.close(draining: false).isEmpty, "closing again does nothing")
        }
    }

    @Test(
        "I2.9: what is dropped lets go of other handles of the port, and their packets are dropped, too",
        arguments: DriverKind.permitted)
    func droppedWithCompany(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pairs = try Pair.several(2)
            for (key, pair) in pairs.enumerated() { try port.associate(pair.server, key: UInt(key)) }
            let other = Request()
            try pairs[1].server.receive(other, into: other.memory)
            var context: Context? = Context(pairs[1].server)
            try pairs[0].server.receive(context!, into: context!.memory)
            context = nil
            port.close()
            pairs[0].server.close()
            complaints.expect(eventually { port.droppedPackets == 2 }, "both packets are counted")
            complaints.expect(!other.isPending, "the other one is over")
        }
    }

    /// What closes the other side's socket when it goes.
    private final class Context: Overlapped, @unchecked Sendable {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 8)
        private let companion: Socket

        init(_ companion: Socket) { self.companion = companion }

        deinit {
            companion.close()
            memory.deallocate()
        }
    }

    @Test(
        "I2.9: closing again may still ask for what is queued; then there is nothing but the end",
        arguments: DriverKind.permitted)
    func closedTwice(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 7)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            try pair.client.say("hello")
            complaints.expect(
                eventually {
                    try? port.post(key: 1)
                    _ = port.dequeue(timeout: .zero)
                    return !request.isPending
                }, "the receive's packet in the queue")
            for number in 1...3 { try port.post(key: UInt(number)) }
            let queued = port.queuedPackets
            complaints.expect(port.close().isEmpty, "everything stays in the queue")
            complaints.equal(port.close(draining: false).count, queued, "what is handed back")
            guard case .closed = port.dequeue(timeout: .zero) else { return complaints.add("not closed") }
            complaints.expect(port.close(draining: false).isEmpty, "once")
            // Whoever got it back may use it again.
            try pair.client.receive(request, into: request.memory)
            pair.client.close()
        }
    }
}
