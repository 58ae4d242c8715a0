import CKernel
import Glibc
import Kernel
import Stage
import Testing

extension KernelSuite {
    /// What one connection may do to its own reading, and to the others.
    @Suite("one connection and the others") struct Bounds {
        private func sendUrgently(_ peer: Peer) {
            var byte = UInt8(ascii: "!")
            #expect(send(peer.socket.descriptor, &byte, 1, Int32(MSG_OOB | MSG_NOSIGNAL)) == 1)
        }

        /// Receives until so many bytes have come, with so many receives pending at a time.
        private func gather(
            _ count: Int, _ socket: Socket, _ collector: Collector, pending: Int
        ) throws -> String {
            var text = ""
            for _ in 0..<pending { try socket.receive(Buffer(64)) }
            while text.utf8.count < count {
                guard let packet = collector.next(within: .seconds(2)) else { break }
                text += (packet.operation as! Buffer).text
                if packet.bytes == 0 { break }
                try socket.receive(Buffer(64))
            }
            return text
        }

        @Test(
            "all ordinary bytes before, between and behind urgent ones come, whenever they come",
            arguments: DriverKind.permitted, [1, 3])
        func urgent(kind: DriverKind, pending: Int) throws {
            try withCollector(kind) { collector in
                // All of it before the first receive.
                let (early, first) = try connection(collector)
                first.send("before")
                sendUrgently(first)
                first.send("behind")
                usleep(5_000)
                #expect(try gather(12, early, collector, pending: pending) == "beforebehind")
                // While receives are pending, again and again: a mark that has been passed is none.
                let (socket, peer) = try connection(collector)
                let talker = startThread("talker") {
                    for round in 0..<200 {
                        peer.send("abc")
                        sendUrgently(peer)
                        peer.send("defg")
                        if round % 7 == 0 { sched_yield() }
                    }
                    usleep(20_000)
                    // So that nothing can hang on a mark: an urgent byte that another one overtakes becomes an ordinary one.
                    try? peer.socket.shutDownSending()
                }
                let text = try gather(.max, socket, collector, pending: pending)
                talker.join()
                #expect(text.filter { $0 != "!" } == String(repeating: "abcdefg", count: 200))
            }
        }

        @Test("first data with an urgent byte, and what lies behind", arguments: DriverKind.permitted)
        func urgentFirstData(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try Socket.listener(on: .loopback())
                try listener.associate(with: collector, key: 5, driver: collector.driver)
                let peer = try Peer(connectingTo: listener.localAddress)
                peer.send("before")
                sendUrgently(peer)
                peer.send("behind")
                usleep(5_000)
                let buffer = Buffer(64 + 2 * Address.capacity)
                let accepted = Socket()
                try accepted.associate(with: collector, key: 6, driver: collector.driver)
                try listener.accept(buffer, accepted, into: buffer.area, receiveLength: 64)
                let packet = try #require(collector.next())
                #expect(packet.bytes == 6 && packet.key == 5)
                #expect(try gather(6, accepted, collector, pending: 1) == "behind")
            }
        }

        @Test("an urgent byte alone wakes nobody, and hides nothing", arguments: DriverKind.permitted)
        func urgentAlone(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                let (data, notice) = (Buffer(8), Buffer(0))
                try socket.receive(notice)
                sendUrgently(peer)
                #expect(collector.isSilent())
                peer.send("x")
                #expect(try #require(collector.next()).operation === notice)
                try socket.receive(data)
                #expect(try #require(collector.next()).bytes == 1 && data.text == "x")
            }
        }

        @Test(
            "a disconnect for reuse throws away some at a time, and others come between",
            arguments: DriverKind.permitted)
        func drains(kind: DriverKind) throws {
            try withCollector(kind, pollers: 0) { collector in
                let (flooded, flood) = try connection(collector)
                let (quiet, client) = try connection(collector)
                try flooded.setBufferSizes(receive: 400_000)
                try flood.socket.setBlocking(false)
                let bytes = Buffer(65_536)
                var vain = 0
                while vain < 20 {
                    let count = try flood.socket.sendNow(bytes.content)
                    vain = count == nil ? vain + 1 : 0
                    if count == nil { usleep(1_000) }
                }
                let sent = unread(flooded)
                #expect(sent > 150_000)
                let (question, ending) = (Buffer(8), Overlapped())
                try quiet.receive(question)
                client.send("?")
                try flooded.disconnect(ending, reuse: true)
                // The poster is not kept either.
                #expect(sent - unread(flooded) <= 70_000)
                var rounds = 0
                while question.isPending, rounds < 100 {
                    collector.poll(until: .now)
                    rounds += 1
                }
                #expect(try #require(collector.next()).operation === question)
                #expect(unread(flooded) > 0 && sent - unread(flooded) <= 210_000)
                // It comes to its end all the same, as soon as the other side does, and not before.
                let limit = Deadline.after(Collector.patience)
                while unread(flooded) > 0, !limit.hasPassed {
                    collector.poll(until: .after(.milliseconds(10)))
                }
                #expect(unread(flooded) == 0 && ending.isPending)
                flood.socket.close()
                while ending.isPending, !limit.hasPassed { collector.poll(until: .after(.milliseconds(10))) }
                #expect(ending.errorCode == 0 && !ending.isPending)
            }
        }

        @Test("who posts is not kept, and who sleeps in the driver goes on", arguments: DriverKind.permitted)
        func goesOn(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                try socket.setBufferSizes(receive: 400_000)
                // As much as fits: nothing more comes that could wake anybody.
                peer.send(pattern(140_000))
                try #require(eventually { unread(socket) == 140_000 } && collector.isSilent())
                let ending = Overlapped()
                try socket.disconnect(ending, reuse: true)
                #expect(eventually { unread(socket) == 0 } && ending.isPending)
                peer.socket.close()
                #expect(try #require(collector.next()).operation === ending)
            }
        }

        @Test(
            "what has come before a cancel is the operation's: many bytes, some, and the end behind them",
            arguments: DriverKind.permitted)
        func beforeACancel(kind: DriverKind) throws {
            try withCollector(kind, pollers: 0) { collector in
                let (socket, peer) = try connection(collector)
                func finish(_ receives: [Buffer]) {
                    let limit = Deadline.after(Collector.patience)
                    while receives.contains(where: \.isPending), !limit.hasPassed {
                        collector.poll(until: .after(.milliseconds(10)))
                    }
                    _ = collector.next(receives.count)
                }
                // In the middle of a walk that was interrupted, too.
                for looks in [true, false] {
                    let receives = (0..<60).map { _ in Buffer(1) }
                    for receive in receives { try socket.receive(receive) }
                    peer.send(pattern(60))
                    if looks { collector.poll(until: .now) }
                    socket.cancel()
                    finish(receives)
                    #expect(receives.allSatisfy { $0.errorCode == 0 && $0.bytes == 1 })
                    #expect(receives.map { $0.area[0] } == pattern(60))
                }
                let receives = [Buffer(16), Buffer(16)]
                for receive in receives { try socket.receive(receive) }
                peer.send("bye")
                try peer.socket.shutDownSending()
                socket.cancel()
                finish(receives)
                #expect(receives.map(\.errorCode) == [0, 0] && receives.map(\.text) == ["bye", ""])
            }
        }

        @Test(
            "while a client floods, a disconnect for reuse can be cancelled and its socket closed",
            arguments: DriverKind.permitted)
        func endsADrain(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                for closes in [false, true] {
                    let (flooded, flood) = try connection(collector)
                    let flooder = startThread("flooder") {
                        let bytes = Buffer(65_536)
                        while ((try? flood.socket.sendNow(bytes.content)) ?? nil) != nil {}
                    }
                    let ending = Overlapped()
                    try flooded.disconnect(ending, reuse: true)
                    usleep(20_000)
                    // It waits for the other side's end, though bytes still come.
                    #expect(ending.isPending && collector.count == 0)
                    if closes { flooded.close() } else { flooded.cancel(ending) }
                    let packet = try #require(collector.next())
                    #expect(packet.operation === ending && packet.code == ECANCELED)
                    flooded.close()
                    flooder.join()
                }
            }
        }

        @Test(
            "many receives of one connection are filled in order, and another's comes between",
            arguments: DriverKind.permitted)
        func manyReceives(kind: DriverKind) throws {
            try withCollector(kind, pollers: 0) { collector in
                let (busy, talker) = try connection(collector)
                let (quiet, client) = try connection(collector)
                let receives = (0..<200).map { _ in Buffer(100) }
                for receive in receives { try busy.receive(receive) }
                let question = Buffer(8)
                try quiet.receive(question)
                collector.poll(until: .now)
                talker.send(pattern(20_000))
                client.send("?")
                let limit = Deadline.after(Collector.patience)
                var before = -1
                while receives.contains(where: \.isPending), !limit.hasPassed {
                    collector.poll(until: .after(.milliseconds(10)))
                    if before < 0, !question.isPending { before = receives.count { !$0.isPending } }
                }
                #expect(before < 100, "\(before) of 200 before the other's")
                let packets = collector.next(201).map(\.operation).filter { $0 !== question }
                #expect(packets.count == 200 && zip(packets, receives).allSatisfy { $0 === $1 })
                #expect(receives.flatMap { Array($0.area) } == pattern(20_000))
            }
        }
    }
}
