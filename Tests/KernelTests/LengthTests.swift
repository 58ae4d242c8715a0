import CKernel
import Glibc
import Kernel
import Stage
import Testing

/// So much address space: memory comes with the pages that are written.
private final class Expanse: @unchecked Sendable {
    let area: UnsafeMutableRawBufferPointer
    init(_ count: Int) {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        area = .init(start: mmap(nil, count, PROT_READ | PROT_WRITE, flags, -1, 0), count: count)
    }
    deinit { munmap(area.baseAddress, area.count) }

    /// The same pages again and again: what is written to all of it takes the room of one piece.
    func foldUp(by piece: Int) {
        let memory = ck_memfd_create("fold", 0)
        ftruncate(memory, piece)
        for start in stride(from: 0, to: area.count, by: piece) {
            let length = min(piece, area.count - start)
            mmap(area.baseAddress! + start, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0)
        }
        close(memory)
    }
}

extension KernelSuite {
    /// A length has 64 bits, whatever a system call takes at a time.
    @Suite("lengths of 2 GiB and more") struct Lengths {
        private static let lengths = [1 << 31, 1 << 32]
        private var drivers: [DriverKind] { DriverKind.permitted }

        @Test(
            "a receive, first data and a plain receive into much room", arguments: DriverKind.permitted,
            lengths)
        func receives(kind: DriverKind, length: Int) throws {
            try withCollector(kind) { collector in
                let room = Expanse(length + 2 * Address.capacity)
                let (socket, peer) = try connection(collector)
                let receive = Overlapped()
                let whole = UnsafeMutableRawBufferPointer(rebasing: room.area[..<length])
                for _ in 0..<2 {
                    try socket.receive(receive, into: whole)
                    peer.send("hello")
                    let packet = try #require(collector.next())
                    #expect(packet.code == 0 && packet.bytes == 5, "\(packet)")
                    #expect(room.area[..<5].elementsEqual("hello".utf8))
                }
                let (plain, other) = try connection(nil)
                other.send("hello")
                #expect(eventually { (try? plain.receiveNow(into: whole)) == 5 })
                let listener = try Socket.listener(on: .loopback())
                try listener.associate(with: collector, key: 5, driver: collector.driver)
                let accept = Overlapped()
                try listener.accept(accept, Socket(), into: room.area, receiveLength: length)
                let client = try Peer(connectingTo: listener.localAddress)
                client.send("first")
                let packet = try #require(collector.next())
                #expect(packet.code == 0 && packet.bytes == 5, "\(packet)")
            }
        }

        @Test("a send goes out whole, and then the next one", arguments: DriverKind.permitted)
        func sends(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let length = 1 << 31
                let zeros = Expanse(length)
                let (socket, peer) = try connection(collector)
                let (long, short) = (Overlapped(), Buffer("!"))
                let reader = startThread("reader") {
                    // Bytes that are thrown away where they are: the copies would take longer than all the rest.
                    var left = length
                    while left > 0 {
                        let count = recv(
                            peer.socket.descriptor, nil, min(left, 1 << 30), Int32(MSG_TRUNC))
                        guard count > 0 else { break }
                        left -= count
                    }
                    #expect(left == 0 && peer.text(1) == "!")
                }
                try socket.send(long, from: .init(zeros.area))
                try socket.send(short)
                let packets = [collector.next(within: .seconds(30)), collector.next(within: .seconds(30))]
                #expect(packets.map { $0?.bytes } == [length, 1] && packets.map { $0?.code } == [0, 0])
                reader.join()
                let (plain, _) = try connection(nil)
                #expect(try plain.sendNow(.init(zeros.area)) ?? 0 > 0)
            }
        }

        @Test("a read and a write have all their bytes", arguments: DriverKind.permitted)
        func files(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let length = (1 << 31) + 4_096
                let (room, much) = (Expanse(length), Expanse((1 << 32) + 4_096))
                // Nothing is copied there.
                let sink = try File("/dev/null", for: .writing)
                try sink.associate(with: collector, key: 8, driver: collector.driver)
                let write = Overlapped()
                for offset in [0, Int64.max - 4_096] {
                    write.offset = offset
                    try sink.write(write, from: .init(much.area))
                    let packet = try #require(collector.next())
                    #expect(packet.bytes == much.area.count && packet.code == 0 || offset > 0, "\(packet)")
                }
                room.foldUp(by: 32 << 20)
                let memory = ck_memfd_create("long", 0)
                defer { close(memory) }
                ftruncate(memory, length)
                pwrite(memory, "end", 3, length - 3)
                let source = try File("/proc/self/fd/\(memory)")
                try source.associate(with: collector, key: 8, driver: collector.driver)
                let read = Overlapped()
                try source.read(read, into: room.area)
                let packet = try #require(collector.next(within: .seconds(30)))
                #expect(packet.bytes == length && packet.code == 0, "\(packet)")
                #expect(room.area[(length - 3)...].elementsEqual("end".utf8))
                // More room than file.
                read.offset = Int64(length - 3)
                try source.read(read, into: room.area)
                #expect(try #require(collector.next()).bytes == 3)
                read.offset = Int64(length)
                try source.read(read, into: room.area)
                #expect(try #require(collector.next()).code == SystemError.endOfFile)
            }
        }

        @Test("a transmit says how much it takes, and takes that much", arguments: DriverKind.permitted)
        func transmits(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let zeros = Expanse(1 << 32)
                let (socket, peer) = try connection(collector)
                let transmit = Overlapped()
                for (head, tail) in [
                    (1 << 31, 0), (1 << 30, 1 << 30), (0, 1 << 32), (1, Socket.transmitLimit),
                ] {
                    expectError(EINVAL) {
                        try socket.transmit(
                            transmit, nil, head: .init(rebasing: zeros.area[..<head]),
                            tail: .init(rebasing: zeros.area[..<tail]))
                    }
                }
                try socket.transmit(
                    transmit, nil, head: .init(rebasing: zeros.area[..<Socket.transmitLimit]))
                #expect(peer.receive(100_000).count == 100_000)
                socket.close()
                let packet = try #require(collector.next())
                #expect(packet.code != 0 && packet.bytes >= 100_000 && packet.bytes < Socket.transmitLimit)
            }
        }
    }
}
