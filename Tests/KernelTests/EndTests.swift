import CKernel
import Glibc
import Kernel
import Stage
import Synchronization
import Testing

extension KernelSuite {
    @Suite("cancel and close") struct Ends {
        @Test("cancels one, and the others keep their order", arguments: DriverKind.permitted)
        func cancelOne(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                for victim in 0..<3 {
                    let receives = (0..<3).map { _ in Buffer(2) }
                    for receive in receives { try socket.receive(receive) }
                    #expect(socket.cancel(receives[victim]))
                    let packet = try #require(collector.next())
                    #expect(
                        packet.operation === receives[victim] && packet.code == ECANCELED && packet.bytes == 0
                    )
                    #expect(!socket.cancel(receives[victim]), "nothing is found any more")
                    peer.send("aabb")
                    let rest = receives.indices.filter { $0 != victim }
                    for (index, text) in zip(rest, ["aa", "bb"]) {
                        #expect(try #require(collector.next()).operation === receives[index])
                        #expect(receives[index].text == text)
                    }
                }
            }
        }

        @Test(
            "cancels all of one handle, in both directions, and nothing of another",
            arguments: DriverKind.permitted)
        func cancelAll(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector, sendBuffer: 65_536)
                let (other, otherPeer) = try connection(collector)
                let untouched = Buffer(8)
                try other.receive(untouched)
                #expect(!socket.cancel() && !socket.cancel(untouched))
                let receives = (0..<4).map { _ in Buffer(8) }
                for receive in receives { try socket.receive(receive) }
                let sends = (0..<3).map { _ in Buffer(pattern(2_000_000)) }
                for send in sends { try socket.send(send) }
                #expect(socket.cancel())
                let packets = collector.next(7)
                #expect(Set(packets.map { ObjectIdentifier($0.operation) }).count == 7)
                #expect(packets.allSatisfy { $0.code == ECANCELED }, "\(packets)")
                // A cancelled send tells how much of it has left.
                let sent = try #require(packets.first { $0.operation === sends[0] }).bytes
                try #require(sent > 0 && sent < 2_000_000)
                try socket.send(Buffer("!"))
                #expect(peer.receive(sent + 1) == Array(pattern(2_000_000)[..<sent]) + Array("!".utf8))
                #expect(untouched.isPending && collector.next()?.bytes == 1 && !socket.cancel())
                withExtendedLifetime(otherPeer) {}
            }
        }

        @Test("a completed operation cannot be cancelled any more", arguments: DriverKind.permitted)
        func tooLate(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                let receive = Buffer(8)
                try socket.receive(receive)
                peer.send("done")
                #expect(receive.wait(until: .after(.seconds(5))))
                #expect(!socket.cancel(receive) && !socket.cancel())
                let packet = try #require(collector.next())
                #expect(packet.code == 0 && packet.bytes == 4 && collector.isSilent())
            }
        }

        @Test(
            "what came before a cancel or a close is the operation's, although nobody has asked the driver since",
            arguments: DriverKind.permitted, [false, true])
        func cameBefore(kind: DriverKind, byClosing: Bool) throws {
            let collector = try Collector(kind, pollers: 0)
            let (socket, peer) = try connection(collector)
            let listener = try Socket.listener(on: .loopback())
            try listener.associate(with: collector, key: 5, driver: collector.driver)
            let (accepted, silent) = (Socket(), Socket())
            let (plain, waiting) = (Buffer(2 * Address.capacity), Buffer(8 + 2 * Address.capacity))
            let receive = Buffer(8)
            try socket.receive(receive)
            try listener.accept(plain, accepted, into: plain.area, receiveLength: 0)
            // Handles are registered, and what is pending has been started.
            collector.poll(until: .after(.milliseconds(1)))
            peer.send("early")
            let client = try Peer(connectingTo: listener.localAddress)
            if byClosing {
                socket.close()
                listener.close()
            } else {
                #expect(!socket.cancel(receive) && !socket.cancel())
                #expect(!listener.cancel(plain))
            }
            let deadline = Deadline.after(.seconds(5))
            while collector.count < 2, !deadline.hasPassed {
                collector.poll(until: .after(.milliseconds(10)))
            }
            let packets = collector.next(2)
            #expect(packets.count == 2 && packets.allSatisfy { $0.code == 0 }, "\(packets)")
            #expect(receive.text == "early" && accepted.descriptor >= 0)
            guard !byClosing else { return }
            // The same for an accept that has its client, and whose first data have come.
            try listener.accept(waiting, silent, into: waiting.area, receiveLength: 8)
            let second = try Peer(connectingTo: listener.localAddress)
            while silent.descriptor < 0, !deadline.hasPassed {
                collector.poll(until: .after(.milliseconds(10)))
            }
            second.send("hello")
            #expect(!listener.cancel(waiting))
            while collector.count < 1, !deadline.hasPassed {
                collector.poll(until: .after(.milliseconds(10)))
            }
            let packet = try #require(collector.next())
            #expect(packet.operation === waiting && packet.code == 0 && packet.bytes == 5)
            withExtendedLifetime((client, second)) {}
        }

        @Test(
            "the same for what takes several steps: a silent client is a wait that can be cancelled, and whoever has come with data, or has ended, is a result",
            arguments: DriverKind.permitted)
        func cameBeforeInSteps(kind: DriverKind) throws {
            let collector = try Collector(kind, pollers: 0)
            func next() -> Packet? {
                let deadline = Deadline.after(Collector.patience)
                while collector.count == 0, !deadline.hasPassed { collector.poll(until: deadline) }
                return collector.next(within: .zero)
            }
            func isUntouched() { collector.poll(until: .after(.milliseconds(1))) }
            let listener = try Socket.listener(on: .loopback())
            try listener.associate(with: collector, key: 5, driver: collector.driver)
            for saying in ["", "hello"] {
                let accepted = Socket()
                let accept = Buffer(8 + 2 * Address.capacity)
                try listener.accept(accept, accepted, into: accept.area, receiveLength: 8)
                isUntouched()
                let client = try Peer(connectingTo: listener.localAddress)
                client.send(saying)
                #expect(listener.cancel(accept) == saying.isEmpty)
                let packet = try #require(next())
                #expect(packet.operation === accept && packet.bytes == saying.utf8.count)
                #expect(packet.code == (saying.isEmpty ? ECANCELED : 0))
                client.socket.close()
            }
            let notice = Overlapped()
            try listener.noticeShortage(notice)
            isUntouched()
            let client = try Peer(connectingTo: listener.localAddress)
            #expect(!listener.cancel(notice))
            #expect(try #require(next()).code == 0)
            let (socket, peer) = try connection(collector)
            let disconnect = Overlapped()
            try socket.disconnect(disconnect, reuse: true)
            isUntouched()
            peer.socket.close()
            #expect(!socket.cancel())
            let packet = try #require(next())
            #expect(packet.operation === disconnect && packet.code == 0 && socket.descriptor == -1)
            // Several receives, of which all but the last have their bytes.
            let (second, secondPeer) = try connection(collector)
            let receives = (0..<4).map { _ in Buffer(1) }
            for receive in receives { try second.receive(receive) }
            isUntouched()
            secondPeer.send("abc")
            second.close()
            let packets = (0..<4).compactMap { _ in next() }
            #expect(packets.map(\.code) == [0, 0, 0, ECANCELED])
            #expect(packets.map { ($0.operation as? Buffer)?.text } == ["a", "b", "c", ""])
            // The same when the stream has ended behind the bytes: that is what the others get.
            let (third, thirdPeer) = try connection(collector)
            let last = (0..<3).map { _ in Buffer(8) }
            for receive in last { try third.receive(receive) }
            isUntouched()
            thirdPeer.send("end")
            try thirdPeer.socket.shutDownSending()
            #expect(!third.cancel(last[1]))
            third.close()
            #expect((0..<3).compactMap { _ in next() }.map(\.code) == [0, 0, 0])
            #expect(last.map(\.text) == ["end", "", ""])
            withExtendedLifetime(client) {}
        }

        @Test(
            "what a ring has not handed over yet is cancelled and closed as well", arguments: [false, true])
        func cancelUnsubmitted(byClosing: Bool) throws {
            for kind in DriverKind.permitted {
                // Nobody waits in the driver, so nothing is handed over by itself.
                let collector = try Collector(kind, pollers: 0, submission: .withNextWait)
                let (socket, peer) = try connection(collector)
                let receive = Buffer(8)
                try socket.receive(receive)
                let deadline = Deadline.after(.seconds(5))
                if byClosing {
                    socket.close()
                    // The number is free again: nobody else's bytes may be taken with the old request.
                    let (other, otherPeer) = try connection(nil)
                    otherPeer.send("not yours")
                    usleep(1_000)
                    while receive.isPending, !deadline.hasPassed {
                        collector.poll(until: .after(.milliseconds(10)))
                    }
                    let own = Buffer(16)
                    #expect(try other.receiveNow(into: own.area) == 9 && peer.sawEnd)
                } else {
                    #expect(socket.cancel(receive))
                    while receive.isPending, !deadline.hasPassed {
                        collector.poll(until: .after(.milliseconds(10)))
                    }
                }
                #expect(receive.errorCode == ECANCELED && receive.bytes == 0 && !receive.isPending)
                socket.close()
            }
        }

        @Test(
            "cancel from several threads against completion: each operation once",
            arguments: DriverKind.permitted)
        func cancelStorm(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                var received = 0
                for _ in 0..<100 {
                    let receives = (0..<8).map { _ in Buffer(1) }
                    for receive in receives { try socket.receive(receive) }
                    let start = Barrier(3)
                    inThreads(3) { index in
                        start.arrive()
                        switch index {
                        case 0: for receive in receives { socket.cancel(receive) }
                        case 1: for receive in receives.reversed() { socket.cancel(receive) }
                        default: peer.send("x")
                        }
                    }
                    let packets = collector.next(8)
                    #expect(Set(packets.map { ObjectIdentifier($0.operation) }).count == 8)
                    received += packets.reduce(0) { $0 + $1.bytes }
                    #expect(packets.allSatisfy { $0.code == ECANCELED || ($0.code == 0 && $0.bytes == 1) })
                }
                // What no receive took is still there.
                peer.send("end")
                let rest = Buffer(200)
                while received < 103 {
                    try socket.receive(rest)
                    received += try #require(collector.next()).bytes
                }
                #expect(received == 103 && collector.isSilent())
            }
        }

        @Test(
            "close completes everything pending as cancelled, once, with the key",
            arguments: DriverKind.permitted)
        func closeCompletes(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector, sendBuffer: 65_536)
                for _ in 0..<5 { try socket.receive(Buffer(8)) }
                for _ in 0..<3 { try socket.send(Buffer(2_000_000)) }
                socket.close()
                let packets = collector.next(8)
                #expect(
                    packets.count == 8 && packets.allSatisfy { $0.code == ECANCELED && $0.key == 7 },
                    "\(packets)")
                socket.close()
                #expect(collector.isSilent() && !socket.cancel())
                while peer.receive(1 << 16).count == 1 << 16 {}

                let (idle, idlePeer) = try connection(collector)
                idle.close()
                #expect(idlePeer.sawEnd && collector.isSilent(), "nothing was pending")
            }
        }

        @Test("what was sent before a close still arrives", arguments: DriverKind.permitted)
        func closeDelivers(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                try socket.send(Buffer("goodbye"))
                #expect(try #require(collector.next()).bytes == 7)
                try socket.receive(Buffer(8))
                socket.close()
                #expect(peer.text(7) == "goodbye" && peer.sawEnd)
                #expect(try #require(collector.next()).code == ECANCELED)
                let (abortive, victim) = try connection(collector)
                try abortive.setAbortiveClose()
                abortive.close()
                var byte: UInt8 = 0
                expectError(ECONNRESET) {
                    _ = try withUnsafeMutableBytes(of: &byte) { bytes throws(SystemError) in
                        try victim.socket.receiveNow(into: bytes)
                    }
                }
            }
        }

        @Test(
            "close from another thread, again and again, while operations are posted",
            arguments: DriverKind.permitted)
        func closeRace(kind: DriverKind) throws {
            try withCollector(kind, pollers: 2) { collector in
                for _ in 0..<100 {
                    let (socket, peer) = try connection(collector)
                    let start = Barrier(3)
                    let accepted = Counter()
                    inThreads(3) { index in
                        start.arrive()
                        switch index {
                        case 0:
                            for turn in 0..<20 {
                                do {
                                    if turn % 2 == 0 {
                                        try socket.receive(Buffer(4))
                                    } else {
                                        try socket.send(Buffer("1234"))
                                    }
                                    accepted.add()
                                } catch { #expect((error as? SystemError)?.code == EBADF) }
                            }
                        case 1: peer.send("12345678")
                        default: socket.close()
                        }
                    }
                    let packets = collector.next(accepted.value)
                    #expect(Set(packets.map { ObjectIdentifier($0.operation) }).count == accepted.value)
                    #expect(packets.allSatisfy { $0.code == 0 || $0.code == ECANCELED })
                }
                #expect(collector.isSilent())
            }
        }

        @Test(
            "a handle that nobody refers to lives until nothing is pending, and then closes",
            arguments: DriverKind.permitted)
        func lastReference(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                var (socket, peer): (Socket?, Peer) = try connection(collector)
                weak let observer = socket
                let receive = Buffer(8)
                try socket?.receive(receive)
                socket = nil
                #expect(observer != nil && collector.isSilent())
                peer.send("alive")
                #expect(try #require(collector.next()).bytes == 5)
                #expect(peer.sawEnd && eventually { observer == nil })
            }
        }

        @Test("an operation keeps nothing of what it was last posted with", arguments: DriverKind.permitted)
        func keepsNothing(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let operation = Overlapped()
                let (socket, peer) = try connection(collector)
                weak var sent: File?
                do {
                    let file = try scratchFile(pattern(100))
                    sent = file
                    try socket.transmit(operation, file)
                    #expect(peer.receive(100) == pattern(100))
                    #expect(try #require(collector.next()).bytes == 100)
                }
                #expect(eventually { sent == nil }, "the file goes, although the operation is kept")
                try socket.disconnect(operation, reuse: true)
                peer.socket.close()
                #expect(try #require(collector.next()).code == 0 && socket.descriptor == -1)
                // A plain disconnect does not wait for the other side, and leaves the socket as it is.
                let (second, silent) = try connection(collector)
                try second.disconnect(operation)
                #expect(try #require(collector.next()).code == 0 && second.descriptor >= 0)
                #expect(silent.sawEnd)
            }
        }

        @Test("who waits for an operation learns that its post was refused")
        func awaitedRefusal() throws {
            let page = try #require(
                mmap(nil, 4_096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "a page that may not be read"
            )
            defer { munmap(page, 4_096) }
            try withCollector(.epoll) { collector in
                let (socket, peer) = try connection(collector)
                let operation = Overlapped()
                let isOver = Atomic<Bool>(false)
                let ended = Gate()
                let waiter = try Kernel.Thread("waiter") {
                    while !isOver.load(ordering: .acquiring) {
                        _ = operation.wait(until: .after(.seconds(20)))
                    }
                    ended.open()
                }
                // Each of these is pending for a moment, and the waiter looks all the time.
                for _ in 0..<5_000 {
                    expectError(EFAULT) { try socket.send(operation, from: .init(start: page, count: 1)) }
                }
                isOver.store(true, ordering: .releasing)
                #expect(ended.pass(), "it still sleeps")
                waiter.join()
                #expect(collector.isSilent())
                withExtendedLifetime(peer) {}
            }
        }

        @Test("no operation and no driver outlives its last reference", arguments: DriverKind.permitted)
        func nothingLeaks(kind: DriverKind) throws {
            weak var driver: Driver?
            weak var operation: Overlapped?
            weak var handle: Socket?
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                let file = try scratchFile(pattern(1 << 16))
                driver = collector.driver
                handle = socket
                let transmit = Overlapped()
                operation = transmit
                try socket.transmit(transmit, file)
                _ = peer.receive(1 << 16)
                _ = collector.next()
                socket.close()
            }
            #expect(eventually { driver == nil && operation == nil && handle == nil })
        }
    }
}
