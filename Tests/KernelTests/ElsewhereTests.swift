import CKernel
import Glibc
import Kernel
import Stage
import Synchronization
import Testing

/// An event that counts.
private final class Bell: Signal, @unchecked Sendable {
    private let count = Atomic<Int>(0)
    override func set() { count.add(1, ordering: .releasing) }
    var rings: Int { count.load(ordering: .acquiring) }
}

extension KernelSuite {
    /// Drivers that nobody polls, and handles that go from one to another.
    @Suite("nobody there, and somewhere else") struct Elsewhere {
        @Test(
            "what is pending in a retired driver is carried out, and what is posted from then on",
            arguments: DriverKind.permitted)
        func retired(kind: DriverKind) throws {
            try withCollector(kind, pollers: 0) { collector in
                let (socket, peer) = try connection(collector)
                let (before, after) = (Buffer(8), Buffer(8))
                let bells = (Bell(), Bell())
                (before.event, after.event) = bells
                try socket.receive(before)
                collector.driver.retire()
                peer.send("one")
                #expect(eventually { bells.0.rings == 1 } && before.text == "one")
                try socket.receive(after)
                peer.send("two")
                #expect(eventually { bells.1.rings == 1 } && after.text == "two")
                // And what comes to it only then, as a listener's client does.
                let (late, other) = try connection(collector)
                let last = Buffer(8)
                try late.receive(last)
                other.send("three")
                #expect(try #require(collector.next(3).last).operation === last && last.text == "three")
            }
        }

        @Test(
            "a driver that had nothing when it retired has somebody as soon as it has something",
            arguments: DriverKind.permitted)
        func retiredEmpty(kind: DriverKind) throws {
            try withCollector(kind, pollers: 0) { collector in
                collector.driver.retire()
                let (socket, peer) = try connection(collector)
                let receive = Buffer(8)
                try socket.receive(receive)
                usleep(2_000)
                peer.send("one")
                #expect(try #require(collector.next()).operation === receive && receive.text == "one")
                // One that a walk has left for now.
                try socket.setBufferSizes(receive: 400_000)
                peer.send(pattern(140_000))
                try #require(eventually { unread(socket) == 140_000 })
                let ending = Overlapped()
                try socket.disconnect(ending, reuse: true)
                #expect(eventually { unread(socket) == 0 })
                peer.socket.close()
                #expect(try #require(collector.next()).operation === ending)
            }
        }

        @Test(
            "a receive that waits for somebody who comes is started when nobody will",
            arguments: DriverKind.permitted)
        func retiredBehindAnother(kind: DriverKind) throws {
            try withCollector(kind, pollers: 0) { collector in
                let (socket, peer) = try connection(collector)
                let receives = [Buffer(8), Buffer(8)]
                for receive in receives { try socket.receive(receive) }
                peer.send("one")
                collector.poll(until: .after(Collector.patience))
                #expect(receives.map(\.isPending) == [false, true])
                collector.driver.retire()
                usleep(2_000)
                peer.send("two")
                #expect(collector.next(2).map(\.bytes) == [3, 3] && receives[1].text == "two")
            }
        }

        @Test("a retired driver goes when its last handle does", arguments: DriverKind.permitted)
        func retiredIsLetGo(kind: DriverKind) throws {
            weak var driver: Driver?
            do {
                let collector = try Collector(kind, pollers: 0)
                driver = collector.driver
                let (socket, peer) = try connection(collector)
                let receive = Buffer(8)
                try socket.receive(receive)
                collector.driver.retire()
                peer.send("x")
                #expect(collector.next() != nil)
                #expect(driver != nil)
                socket.close()
            }
            #expect(eventually { driver == nil })
        }

        @Test(
            "nobody waits for a round of the caretaker's when the last handle goes",
            arguments: DriverKind.permitted)
        func retiredIsLetGoAtOnce(kind: DriverKind) throws {
            // A round takes a second. On a busy machine one of many is quick.
            let isQuick = try (0..<10).contains { _ in
                weak var driver: Driver?
                let start: UInt64
                do {
                    let collector = try Collector(kind, pollers: 0)
                    driver = collector.driver
                    let (socket, peer) = try connection(collector)
                    let receive = Buffer(8)
                    try socket.receive(receive)
                    collector.driver.retire()
                    peer.send("x")
                    #expect(collector.next() != nil)
                    start = monotonicNanoseconds()
                    socket.close()
                }
                return eventually { driver == nil } && monotonicNanoseconds() - start < 500_000_000
            }
            #expect(isQuick)
        }

        @Test(
            "an accept with first data does not wait for the port of its socket",
            arguments: DriverKind.permitted)
        func foreignAccept(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                // Nobody polls here.
                let busy = try Collector(kind, pollers: 0)
                let listener = try Socket.listener(on: .loopback())
                try listener.associate(with: collector, key: 5, driver: collector.driver)
                for comesLate in [false, true] {
                    let buffer = Buffer(16 + 2 * Address.capacity)
                    let socket = Socket()
                    if !comesLate { try socket.associate(with: busy, key: 6, driver: busy.driver) }
                    try listener.accept(buffer, socket, into: buffer.area, receiveLength: 16)
                    let peer = try Peer(connectingTo: listener.localAddress)
                    #expect(eventually { listener.acceptsAwaitingData == 1 })
                    // While the accept waits, too, the socket may be given to a port.
                    if comesLate { try socket.associate(with: busy, key: 6, driver: busy.driver) }
                    let early = Buffer(8)
                    try socket.receive(early)
                    peer.send("first")
                    let packet = try #require(collector.next())
                    #expect(packet.operation === buffer && packet.bytes == 5 && packet.key == 5)
                    // From here on it is its own port's.
                    peer.send("second")
                    #expect(collector.isSilent() && early.isPending)
                    busy.poll(until: .after(Collector.patience))
                    let second = try #require(busy.next(within: .zero))
                    #expect(second.operation === early && second.key == 6 && early.text == "second")
                    try socket.send(Buffer("sent"))
                    #expect(peer.text(4) == "sent")
                    socket.close()
                    while busy.next(within: .milliseconds(1)) != nil {}
                    busy.poll(until: .now)
                    while busy.next(within: .milliseconds(1)) != nil {}
                }
                // Cancelling such a one and closing the listener do not wait either.
                for closes in [false, true] {
                    let buffer = Buffer(16 + 2 * Address.capacity)
                    let socket = Socket()
                    try socket.associate(with: busy, key: 6, driver: busy.driver)
                    try listener.accept(buffer, socket, into: buffer.area, receiveLength: 16)
                    let peer = try Peer(connectingTo: listener.localAddress)
                    #expect(eventually { listener.acceptsAwaitingData == 1 })
                    if closes { listener.close() } else { #expect(listener.cancel(buffer)) }
                    let packet = try #require(collector.next())
                    #expect(packet.operation === buffer && packet.code == ECANCELED)
                    socket.close()
                    #expect(peer.sawEnd)
                }
            }
        }

        @Test(
            "a file's operation with an event needs nobody who asks the file's port",
            arguments: DriverKind.permitted)
        func fileWithEvent(kind: DriverKind) throws {
            let collector = try Collector(kind, pollers: 0)
            let file = try scratchFile(pattern(100_000))
            try file.associate(with: collector, key: 3, driver: collector.driver)
            for _ in 0..<20 {
                let read = Buffer(50_000)
                let bell = Bell()
                read.event = bell
                read.offset = 1_000
                try file.read(read, into: read.area)
                #expect(eventually { bell.rings == 1 })
                #expect(Array(read.area) == pattern(50_000, from: 1_000))
                #expect(try #require(collector.next()).operation === read)
            }
        }

        // MARK: From one port to another

        private final class Holding: CompletionTarget, @unchecked Sendable {
            let key: UInt?
            init(_ key: UInt?) { self.key = key }
            override func holdsPackets(withKey key: UInt) -> Bool { key == self.key }
        }

        @Test("a handle moves when nothing is under way, and only then", arguments: DriverKind.permitted)
        func moves(kind: DriverKind) throws {
            try withCollector(kind) { first in
                try withCollector(kind) { second in
                    let (socket, peer) = try connection(first)
                    func move() throws { try socket.reassociate(with: second, key: 9, driver: second.driver) }
                    let receive = Buffer(8)
                    try socket.receive(receive)
                    expectError(EBUSY, move)
                    #expect(socket.completionKey == 7)
                    peer.send("one")
                    #expect(try #require(first.next()).key == 7)
                    // What has come meanwhile is not lost.
                    peer.send("two")
                    usleep(2_000)
                    try move()
                    #expect(socket.completionKey == 9)
                    try socket.receive(receive)
                    let packet = try #require(second.next())
                    #expect(packet.key == 9 && receive.text == "two" && first.count == 0)
                    let send = Buffer("three")
                    try socket.send(send)
                    #expect(try #require(second.next()).operation === send && peer.text(5) == "three")
                    // There and back, under traffic.
                    for round in 0..<50 {
                        let there = round % 2 == 0 ? first : second
                        peer.send("ping")
                        try socket.reassociate(with: there, key: UInt(round), driver: there.driver)
                        try socket.receive(receive)
                        let packet = try #require(there.next())
                        #expect(packet.key == UInt(round) && receive.text == "ping")
                    }
                    socket.close()
                    expectError(EBADF, move)
                }
            }
        }

        @Test("what cannot move stays as it was", arguments: DriverKind.permitted)
        func doesNotMove(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (alone, _) = try connection(nil)
                expectError(EINVAL) {
                    try alone.reassociate(with: collector, key: 1, driver: collector.driver)
                }
                // Its port still has a packet with this key, or with another.
                let (held, peer) = try connection(nil)
                try held.associate(with: Holding(4), key: 4, driver: collector.driver)
                expectError(EBUSY) {
                    try held.reassociate(with: collector, key: 1, driver: collector.driver)
                }
                #expect(held.completionKey == 4)
                let (free, _) = try connection(nil)
                try free.associate(with: Holding(5), key: 4, driver: collector.driver)
                try free.reassociate(with: collector, key: 1, driver: collector.driver)
                _ = peer
                // A listener whose accept waits for first data, in another handle's lane.
                let listener = try Socket.listener(on: .loopback())
                try listener.associate(with: collector, key: 5, driver: collector.driver)
                let (buffer, socket) = (Buffer(16 + 2 * Address.capacity), Socket())
                try listener.accept(buffer, socket, into: buffer.area, receiveLength: 16)
                let client = try Peer(connectingTo: listener.localAddress)
                #expect(eventually { listener.acceptsAwaitingData == 1 })
                expectError(EBUSY) {
                    try listener.reassociate(with: collector, key: 6, driver: collector.driver)
                }
                client.send("x")
                #expect(try #require(collector.next()).key == 5)
                try listener.reassociate(with: collector, key: 6, driver: collector.driver)
                // A file.
                let file = try scratchFile(pattern(1_000))
                try file.associate(with: collector, key: 1, driver: collector.driver)
                try file.reassociate(with: collector, key: 2, driver: collector.driver)
                let read = Buffer(10)
                try file.read(read, into: read.area)
                #expect(try #require(collector.next()).key == 2)
            }
        }
    }
}
