import Glibc
import Kernel
import Stage
import Testing

extension KernelSuite {
    /// Handles that are associated while operations are pending on them, with a driver that is not the one that has
    /// these in hand.
    @Suite("from one driver to another") struct Moving {
        /// Holds back whoever sets it.
        private final class Barrier: Signal, @unchecked Sendable {
            let isReached = Gate()
            let isOpen = Gate()

            override func set() {
                isReached.open()
                isOpen.pass()
            }
        }

        @Test(
            "what waits behind a receive that the old driver carries out goes on in the new one",
            .enabled(
                if: Moving.mayHaveLargeBuffers, "only an administrator gets a receive buffer of 4 MiB at once"
            ),
            .disabled(if: isSanitized, "it looks into a buffer that is being filled"),
            arguments: DriverKind.permitted)
        func behindAReceive(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                for _ in 0..<10 {
                    let (other, otherPeer) = try connection(nil)
                    let (socket, peer) = try connection(nil)
                    try socket.set(SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
                    let barrier = Barrier()
                    let held = Buffer(1)
                    held.event = barrier
                    try other.receive(held)
                    let first = Buffer(2 << 20)
                    let second = Buffer(1)
                    try socket.receive(first)
                    try socket.receive(second)
                    // While the thread of the old driver is held back, there comes what takes it some time to copy.
                    otherPeer.send("x")
                    barrier.isReached.pass()
                    let bytes = pattern(1 << 20).map { $0 | 1 }
                    peer.send(bytes)
                    barrier.isOpen.open()
                    let start = first.area.assumingMemoryBound(to: UInt8.self)
                    let deadline = Deadline.after(Collector.patience)
                    while look(start.baseAddress!) == 0, !deadline.hasPassed {}
                    try socket.associate(with: collector, key: 3, driver: collector.driver)
                    #expect(first.wait(until: deadline))
                    // Whatever the first has not taken is the second's; and there is more to come.
                    peer.send("y")
                    #expect(second.wait(until: deadline) && second.bytes == 1)
                    while collector.next(within: .zero) != nil {}
                    socket.close()
                    withExtendedLifetime(otherPeer) {}
                }
            }
        }

        /// What comes has to fit before anybody takes it.
        private static let mayHaveLargeBuffers: Bool = {
            guard let socket = try? Socket.unbound() else { return false }
            return (try? socket.set(SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)) != nil
        }()

        @inline(never)
        private func look(_ byte: UnsafeMutablePointer<UInt8>) -> UInt8 {
            withExtendedLifetime(monotonicNanoseconds()) { byte.pointee }
        }

        @Test(
            "a file's read is not begun again by the new driver while the old one has it",
            arguments: DriverKind.permitted)
        func readOfAFile(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let scratches = try (0..<4).map { _ in try Scratch() }
                let files = try scratches.map { try File($0.path, for: .writing) }
                let writes = files.map { _ in Buffer(64 << 20) }
                let scratch = try Scratch(pattern(100))
                let file = try File(scratch.path)
                // The helpers have something to do, which takes far longer than what is looked at here.
                for (file, write) in zip(files, writes) { try file.write(write, from: write.content) }
                let read = Buffer(200)
                try file.read(read, into: read.area)
                let wasPending = read.isPending
                let isBehindWrites = wasPending && writes.allSatisfy { $0.isPending }
                let isWithHelpers = isBehindWrites && Driver.system.kind == .epoll
                try file.associate(with: collector, key: 9, driver: collector.driver)
                usleep(2_000)
                let isStillTheirs = read.isPending || writes.contains { !$0.isPending }
                #expect(!isWithHelpers || isStillTheirs)
                #expect(read.wait(until: .after(Collector.patience)))
                #expect(read.bytes == 100)
                if wasPending {
                    let packet = try #require(collector.next())
                    #expect(packet.operation === read && packet.key == 9 && packet.code == 0)
                }
                // And what is posted from now on, of both kinds.
                let behind = (0..<8).map { _ in Buffer(200) }
                for read in behind { try file.read(read, into: read.area) }
                #expect(collector.next(8).allSatisfy { $0.bytes == 100 && $0.key == 9 })
                for write in writes { #expect(write.wait(until: .after(Collector.patience))) }
                #expect(collector.isSilent())
            }
        }

        @Test(
            "a connection without a port, that came with first data, does not depend on its listener's port",
            arguments: DriverKind.permitted)
        func acceptedWithFirstData(kind: DriverKind) throws {
            let collector = try Collector(kind)
            let listener = try Socket.listener(on: .loopback())
            try listener.associate(with: collector, key: 1, driver: collector.driver)
            let socket = Socket()
            let accept = Buffer(1 + 2 * Address.capacity)
            try listener.accept(accept, socket, into: accept.area, receiveLength: 1)
            let peer = try Peer(connectingTo: listener.localAddress)
            peer.send("x")
            #expect(try #require(collector.next()).bytes == 1)
            // From here on nobody asks the port.
            collector.stop()
            let receive = Buffer(1)
            try socket.receive(receive)
            peer.send("y")
            #expect(receive.wait(until: .after(Collector.patience)) && receive.text == "y")
            // It can still be given to a port.
            try socket.receive(receive)
            let port = try Collector(kind)
            try socket.associate(with: port, key: 2, driver: port.driver)
            peer.send("z")
            #expect(try #require(port.next()).key == 2 && receive.text == "z")
            port.stop()
        }
    }
}
