import CKernel
import Glibc
import Kernel
import Stage
import Synchronization
import Testing

/// A file that is gone when the test is over.
final class Scratch: @unchecked Sendable {
    let path: String

    init(_ bytes: [UInt8] = []) throws {
        var template = Array("/tmp/kernel-tests-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        try #require(descriptor >= 0)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            try #require(count > 0)
            rest = rest.dropFirst(count)
        }
        close(descriptor)
    }

    deinit { unlink(path) }
}

/// What the file system of the tests can do.
let fileSystem: (tells: Bool, forgets: Bool, reserves: Bool) = {
    guard let scratch = try? Scratch(pattern(1 << 20)), let file = try? File(scratch.path, for: .writing)
    else {
        return (false, false, false)
    }
    let reserves = ck_fallocate(file.descriptor, 0, 0, 1 << 20) == 0
    var byte: UInt8 = 0
    // One that lies in memory altogether does not tell, nor forget.
    let tells = pwrite(file.descriptor, &byte, 1, 0) == 1 && file.isInMemory(0)
    try? file.forget()
    return (tells, tells && !file.isInMemory(0), reserves)
}()

extension File {
    func isInMemory(_ offset: Int64) -> Bool {
        var byte: UInt8 = 0
        return ck_read_from_memory(descriptor, &byte, 1, offset) == 1
    }

    /// Puts it on the disk and out of the system's memory, but for the pages of some bytes.
    func forget(except kept: [Int] = []) throws {
        try flush()
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM)
        var byte: UInt8 = 0
        for offset in kept { pread(descriptor, &byte, 1, offset) }
    }
}

/// Remembers which thread has completed an operation.
final class Witness: Signal, @unchecked Sendable {
    private let thread = Atomic<Int32>(0)

    override func set() { thread.store(Kernel.Thread.currentID, ordering: .releasing) }

    /// Whether the calling thread has.
    var isThisThread: Bool { thread.load(ordering: .acquiring) == Kernel.Thread.currentID }
}

/// Counts completions.
final class Tally: Signal, @unchecked Sendable {
    private let count = Atomic<Int>(0)

    override func set() { count.add(1, ordering: .releasing) }

    var value: Int { count.load(ordering: .acquiring) }
}

/// An open file that has no name any more.
func scratchFile(_ bytes: [UInt8]) throws -> File {
    let scratch = try Scratch(bytes)
    return try withExtendedLifetime(scratch) { try File(scratch.path) }
}

extension KernelSuite {
    @Suite("files") struct Files {
        private func open(_ collector: Collector, _ scratch: Scratch, _ access: File.Access = .reading) throws
            -> File
        {
            let file = try File(scratch.path, for: access)
            try file.associate(with: collector, key: 9, driver: collector.driver)
            return file
        }

        @Test("reads at offsets, in any order, with four in flight", arguments: DriverKind.permitted)
        func reads(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let bytes = pattern(100_000)
                let file = try open(collector, Scratch(bytes))
                #expect(try file.size == 100_000)
                let reads = [0, 99_990, 50_000, 7].map { offset in
                    let read = Buffer(1_000)
                    read.offset = Int64(offset)
                    return read
                }
                for read in reads { try file.read(read, into: read.area) }
                let packets = collector.next(4)
                #expect(packets.count == 4 && packets.allSatisfy { $0.code == 0 && $0.key == 9 })
                for read in reads {
                    let start = Int(read.offset)
                    #expect(read.bytes == min(1_000, 100_000 - start))
                    #expect(Array(read.area[..<read.bytes]) == Array(bytes[start..<start + read.bytes]))
                }
            }
        }

        @Test(
            "a read at the end fails with end of file; one across it is short",
            arguments: DriverKind.permitted)
        func endOfFile(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let file = try open(collector, Scratch(pattern(10)))
                for (offset, bytes, code) in [
                    (10, 0, SystemError.endOfFile), (1 << 40, 0, SystemError.endOfFile), (6, 4, 0),
                ] {
                    let read = Buffer(8)
                    read.offset = Int64(offset)
                    try file.read(read, into: read.area)
                    let packet = try #require(collector.next())
                    #expect(packet.bytes == bytes && packet.code == code)
                }
                let nothing = Buffer(0)
                try file.read(nothing, into: nothing.area)
                #expect(try #require(collector.next()).code == 0)
                let before = Buffer(8)
                before.offset = -1
                expectError(EINVAL) { try file.read(before, into: before.area) }
                expectError(EINVAL) { try file.write(before, from: before.content) }
                #expect(!before.isPending && collector.isSilent())
            }
        }

        @Test("writes and reads beyond 4 GiB", arguments: DriverKind.permitted)
        func large(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let file = try open(collector, Scratch(), .writing)
                let write = Buffer("far away")
                write.offset = 5 << 30
                try file.write(write, from: write.content)
                #expect(try #require(collector.next()).bytes == 8)
                #expect(try file.size == 5 << 30 + 8 && write.offset == 5 << 30)
                let read = Buffer(20)
                read.offset = 5 << 30 - 2
                try file.read(read, into: read.area)
                #expect(try #require(collector.next()).bytes == 10 && read.text == "\0\0far away")
                try file.setSize(3)
                try file.read(read, into: read.area)
                #expect(try #require(collector.next()).code == SystemError.endOfFile)
                try file.flush()
                try File.flushNames(in: "/tmp")
                expectError(ENOENT) { try File.flushNames(in: file.path + "/none") }
            }
        }

        @Test(
            "over epoll, what is in the system's memory is read when the post returns, and its packet comes",
            .enabled(if: fileSystem.tells, "this file system does not tell what is in memory"))
        func readFromMemory() throws {
            try withCollector(.epoll) { collector in
                let file = try open(collector, Scratch(pattern(100)))
                let read = Buffer(60)
                try file.read(read, into: read.area)
                #expect(!read.isPending && read.bytes == 60)
                #expect(try #require(collector.next()).bytes == 60)
                // Across the end it is a helper's, who knows why it is short.
                read.offset = 50
                try file.read(read, into: read.area)
                #expect(try #require(collector.next()).bytes == 50)
                #expect(collector.isSilent())
            }
        }

        @Test("over epoll, one helper carries out the writes of a file, one after the other")
        func writesInTurn() throws {
            try withCollector(.epoll) { collector in
                let file = try open(collector, Scratch(), .writing)
                // All to the same place: the last that was carried out is what remains.
                let writes = (0..<200).map { number in
                    let write = Buffer(256 << 10)
                    write.area.initializeMemory(as: UInt8.self, repeating: UInt8(number))
                    return write
                }
                for write in writes { try file.write(write, from: write.content) }
                let packets = collector.next(writes.count)
                #expect(packets.allSatisfy { $0.code == 0 && $0.bytes == 256 << 10 })
                let isInOrder = packets.map { $0.operation.identity } == writes.map(\.identity)
                #expect(isInOrder)
                let read = Buffer(1)
                try file.read(read, into: read.area)
                #expect(try #require(collector.next()).bytes == 1 && read.area[0] == 199)
            }
        }

        /// Writes, waits for the packet, and says whether this thread has carried it out.
        private func writesItself(
            _ write: Buffer, at offset: Int64 = 0, into file: File, _ collector: Collector
        ) throws -> Bool {
            let witness = Witness()
            write.event = witness
            write.offset = offset
            try file.write(write, from: write.content)
            #expect(try #require(collector.next()).bytes == write.content.count)
            return witness.isThisThread
        }

        @Test(
            "what is written into reserved room is there when the post returns; larger, or behind it, is a helper's",
            .enabled(if: fileSystem.reserves, "this file system reserves nothing"),
            arguments: DriverKind.permitted)
        func writtenAtOnce(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let scratch = try Scratch()
                let file = try open(collector, scratch, .writing)
                let write = Buffer("room")
                // Reserved anew each time: on a busy machine any copy may seem to take long.
                let isOwn = { (offset: Int64, reserved: Int64) in
                    try file.reserve(reserved)
                    return try writesItself(write, at: offset, into: file, collector)
                }
                #expect(try !isOwn(0, 0), "nothing is reserved")
                #expect(try isOwn(0, 100) && isOwn(96, 100))
                #expect(try !isOwn(97, 100), "across the end")
                write.offset = .max - 2
                try file.write(write, from: write.content)
                #expect(try #require(collector.next()).code != 0)
                try file.reserve(4 << 20)
                #expect(try !writesItself(Buffer(2 << 20), into: file, collector), "too much to wait for")
                #expect(try isOwn(3 << 20, 4 << 20))
                let read = Buffer(4)
                read.offset = 3 << 20
                try file.read(read, into: read.area)
                #expect(try #require(collector.next()).bytes == 4 && read.text == "room")
                #expect(collector.isSilent())
            }
        }

        @Test(
            "room that was cut off is not reserved any more, even if the file grows again",
            .enabled(if: fileSystem.reserves, "this file system reserves nothing"),
            arguments: DriverKind.permitted)
        func cutOff(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let scratch = try Scratch()
                let file = try open(collector, scratch, .writing)
                for (offset, isOwn) in [(4, false), (0, true)] {
                    try file.reserve(100)
                    try file.setSize(4)
                    try file.setSize(100)
                    #expect(
                        try writesItself(Buffer("room"), at: Int64(offset), into: file, collector) == isOwn)
                }
            }
        }

        @Test(
            "who posts a write behind a large one does not wait for it",
            .enabled(if: fileSystem.reserves, "this file system reserves nothing"),
            arguments: DriverKind.permitted)
        func behindLarge(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let scratch = try Scratch()
                let file = try open(collector, scratch, .writing)
                try file.reserve(128 << 20)
                let (large, small) = (Buffer(128 << 20), Buffer("small"))
                let witness = Witness()
                small.event = witness
                // Several: on a busy machine the large one may be through before the small one is posted.
                var own = 0
                for _ in 0..<4 {
                    try file.write(large, from: large.content)
                    try file.write(small, from: small.content)
                    #expect(
                        collector.next(2).allSatisfy { $0.code == 0 && [5, 128 << 20].contains($0.bytes) })
                    if witness.isThisThread { own += 1 }
                }
                #expect(own < 4)
            }
        }

        @Test(
            "who had to wait in a write of his own does not write this file again: the disk is a helper's",
            .enabled(if: fileSystem.reserves, "this file system reserves nothing"))
        func slowDisk() throws {
            try withCollector(.epoll) { collector in
                let scratch = try Scratch()
                let file = try open(collector, scratch, .writing)
                try file.reserve(4)
                let write = Buffer("slow")
                // A file is written by one at a time: who comes while a large write is under way waits for it.
                let (isOver, other) = (Gate(), try File(scratch.path, for: .writing))
                try file.setSize(4)
                let block = [UInt8](repeating: 1, count: 256 << 20)
                let occupant = startThread("occupant") {
                    while !isOver.isOpen {
                        _ = block.withUnsafeBytes { pwrite(other.descriptor, $0.baseAddress, $0.count, 4) }
                    }
                }
                let end = Deadline.after(.seconds(20))
                while try writesItself(write, into: file, collector), !end.hasPassed {}
                isOver.open()
                occupant.join()
                // So it stays, until room is reserved anew.
                #expect(try !writesItself(write, into: file, collector))
                try file.reserve(4)
                #expect(try writesItself(write, into: file, collector))
            }
        }

        @Test("over epoll, what others post while somebody writes is not his to write")
        func writesOfOthers() throws {
            try withCollector(.epoll) { collector in
                let file = try open(collector, Scratch(), .writing)
                try file.reserve(64 << 20)
                let threads = (0..<2).map { thread in
                    startThread("poster \(thread)") {
                        for round in 0..<64 {
                            let write = Buffer(512 << 10)
                            write.area.initializeMemory(as: UInt8.self, repeating: UInt8(thread))
                            write.offset = Int64((2 * round + thread) * write.area.count)
                            try? file.write(write, from: write.content)
                        }
                    }
                }
                for thread in threads { thread.join() }
                try #require(eventually { collector.count == 128 })
                let packets = collector.next(128)
                #expect(packets.allSatisfy { $0.code == 0 && $0.bytes == 512 << 10 })
                let read = Buffer(1)
                for index in 0..<128 {
                    read.offset = Int64(index) * 512 << 10
                    try file.read(read, into: read.area)
                    #expect(try #require(collector.next()).bytes == 1 && Int(read.area[0]) == index % 2)
                }
            }
        }

        @Test(
            "a file that is closed with writes waiting: each comes back once", arguments: DriverKind.permitted
        )
        func closedWithWritesWaiting(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let file = try open(collector, Scratch(), .writing)
                let writes = (0..<100).map { _ in Buffer(256 << 10) }
                for write in writes { try file.write(write, from: write.content) }
                file.close()
                let packets = collector.next(writes.count)
                #expect(
                    packets.count == writes.count && Set(packets.map { $0.operation.identity }).count == 100)
                #expect(packets.allSatisfy { $0.code == 0 || $0.code == ECANCELED })
                #expect(file.descriptor == -1)
                #expect(collector.isSilent())
            }
        }

        #if DEBUG
            @Test(
                "over epoll, the number of a closed file stays taken for as long as a helper has one of its writes"
            )
            func closedWhileWriting() throws {
                try withCollector(.epoll) { collector in
                    let file = try open(collector, Scratch(), .writing)
                    let number = file.descriptor
                    let write = Buffer("written")
                    let (reached, gate) = (Gate(), Gate())
                    try Between.visiting({ moment, operation in
                        guard moment == .queueAndHelper, operation === write else { return }
                        reached.open()
                        gate.pass()
                    }) {
                        try file.write(write, from: write.content)
                        #expect(reached.pass())
                        file.close()
                        // With a free number the next file that somebody opens would get its bytes.
                        #expect(fcntl(number, F_GETFD) >= 0 && write.isPending)
                        gate.open()
                        let packet = try #require(collector.next())
                        #expect(packet.operation === write && packet.code == ECANCELED)
                        #expect(file.descriptor == -1)
                    }
                }
            }
        #endif

        @Test(
            "a write without rights, and a handle that is closed, with an error each",
            arguments: DriverKind.permitted)
        func failures(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let scratch = try Scratch(pattern(10))
                let file = try open(collector, scratch)
                // Refused, as on Windows: no packet comes.
                let write = Buffer("x")
                expectError(EBADF) { try file.write(write, from: write.content) }
                #expect(!write.isPending)
                file.close()
                expectError(EBADF) { try file.read(write, into: write.area) }
                #expect(collector.isSilent())
                expectError(EBADF) { _ = try file.size }
                expectError(EEXIST) { _ = try File(scratch.path, for: .creating) }
                expectError(ENOENT) { _ = try File(scratch.path + "-none") }
                expectError(EISDIR) { _ = try File("/tmp") }
            }
        }

        @Test(
            "many at once, cancelled and closed in the middle: a completion each",
            arguments: DriverKind.permitted)
        func cancelMany(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let scratch = try Scratch(pattern(1 << 20))
                for round in 0..<20 {
                    let file = try open(collector, scratch)
                    let reads = (0..<40).map { index in
                        let read = Buffer(1 << 16)
                        read.offset = Int64(index) << 14
                        return read
                    }
                    for read in reads { try file.read(read, into: read.area) }
                    if round % 2 == 0 { file.cancel() }
                    file.close()
                    let packets = collector.next(40)
                    #expect(Set(packets.map { ObjectIdentifier($0.operation) }).count == 40)
                    for packet in packets where packet.code != ECANCELED {
                        let start = Int(packet.operation.offset)
                        #expect(packet.code == 0 && packet.bytes > 0)
                        let buffer = packet.operation as! Buffer
                        #expect(Array(buffer.area[..<8]) == pattern(8, from: start))
                    }
                    #expect(file.descriptor == -1)
                }
                #expect(collector.isSilent())
            }
        }
    }

    @Suite("transmit") struct Transmits {
        private func post(
            _ socket: Socket, _ operation: Overlapped, _ file: File?, length: Int = 0,
            head: Buffer? = nil, tail: Buffer? = nil
        ) throws {
            try socket.transmit(
                operation, file, length: length, head: head?.content ?? .init(start: nil, count: 0),
                tail: tail?.content ?? .init(start: nil, count: 0))
        }

        @Test("head, file and tail: one operation, one packet", arguments: DriverKind.permitted)
        func everything(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                let bytes = pattern(70_000)
                let file = try scratchFile(bytes)
                let head = Buffer("head")
                let tail = Buffer("and tail")
                let whole = Overlapped()
                try post(socket, whole, file, head: head, tail: tail)
                #expect(peer.text(4) == "head" && peer.receive(70_000) == bytes && peer.text(8) == "and tail")
                var packet = try #require(collector.next())
                #expect(packet.operation === whole && packet.bytes == 70_012 && packet.code == 0)
                let part = Overlapped()
                part.offset = 69_990
                try post(socket, part, file, length: 4)
                #expect(peer.receive(4) == Array(bytes[69_990..<69_994]) && part.offset == 69_990)
                packet = try #require(collector.next())
                #expect(packet.operation === part && packet.bytes == 4)
                try post(socket, part, file)
                #expect(peer.receive(10) == Array(bytes[69_990...]))
                #expect(try #require(collector.next()).bytes == 10)
                try post(socket, part, nil, head: head, tail: tail)
                #expect(peer.text(12) == "headand tail")
                #expect(try #require(collector.next()).bytes == 12)
                try post(socket, part, nil)
                #expect(try #require(collector.next()).bytes == 0 && collector.isSilent())
            }
        }

        @Test(
            "what is in memory is sent by whoever posts it; what may have to wait for a disk is not",
            .enabled(
                if: fileSystem.forgets, "this file system does not tell what is in memory, or keeps it there"),
            arguments: DriverKind.permitted)
        func fromMemory(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                let (bytes, many) = (pattern(600_000), pattern(4 << 20))
                let file = try scratchFile(bytes)
                let operation = Overlapped()
                let witness = Witness()
                operation.event = witness
                func isOwn(_ file: File, _ bytes: [UInt8]) throws -> Bool {
                    // Taken meanwhile, or it would not fit into the connection.
                    let reader = startThread("reader") { #expect(peer.receive(bytes.count) == bytes) }
                    try post(socket, operation, file)
                    reader.join()
                    #expect(try #require(collector.next()).bytes == bytes.count)
                    return witness.isThisThread
                }
                // If the reader is slow, a part waits for room, and the driver's thread sends it.
                let limit = Deadline.after(Collector.patience)
                var isSentByPoster = false
                while !isSentByPoster, !limit.hasPassed { isSentByPoster = try isOwn(file, bytes) }
                #expect(isSentByPoster)
                // The rest of a long one is a helper's: who posts it has other things to do.
                let long = try scratchFile(many)
                for _ in 0..<20 { #expect(try !isOwn(long, many)) }
                // All of it has to be there: not only the beginning, nor the beginning and the end.
                for kept in [[], [0], [0, 599_999], [0, 131_072, 262_144, 393_216, 524_288]] {
                    // Several: a look starts the reading of what it misses, and a quick disk may have it there in time.
                    let isLeftToAnother = try (0..<40).contains { _ in
                        // A new one each time: what has been sent may stay in the connection's hands for a while.
                        let cold = try scratchFile(bytes)
                        try cold.forget(except: kept)
                        return try !isOwn(cold, bytes)
                    }
                    #expect(isLeftToAnother, "\(kept)")
                }
            }
        }

        @Test("a part that was sent before the peer was gone brings the signal as well, and it ends nothing")
        func noSignalWithPart() async {
            await #expect(processExitsWith: .success) {
                inChild {
                    signal(SIGPIPE, SIG_DFL)
                    for kind in DriverKind.permitted {
                        try withCollector(kind) { collector in
                            // More than a connection takes before it looks for answers.
                            let file = try scratchFile(pattern(4 << 20))
                            for _ in 0..<20 {
                                let (socket, peer) = try connection(collector)
                                // In order: what comes next is answered with a reset, while it is being sent.
                                peer.socket.close()
                                let operation = Overlapped()
                                try socket.transmit(operation, file)
                                let code = collector.next()?.code
                                #expect(code != nil && code != 0, "\(String(describing: code))")
                            }
                        }
                    }
                }
            }
        }

        @Test(
            "one connection's many transmits do not keep a thread that serves others",
            arguments: DriverKind.permitted)
        func many(kind: DriverKind) throws {
            try withCollector(kind, pollers: 0) { collector in
                let (socket, peer) = try connection(collector)
                let before = Buffer(8 << 20)
                let file = try scratchFile(pattern(4_096))
                let transmits = (0..<200).map { _ in Overlapped() }
                let witnesses = transmits.map { transmit in
                    let witness = Witness()
                    transmit.event = witness
                    return witness
                }
                try socket.send(before, from: before.content)
                for transmit in transmits { try post(socket, transmit, file) }
                let expected = before.area.count + transmits.count * 4_096
                let reader = startThread("reader") { #expect(peer.receive(expected).count == expected) }
                let limit = Deadline.after(Collector.patience)
                while collector.count <= transmits.count, !limit.hasPassed {
                    collector.poll(until: .after(.milliseconds(10)))
                }
                reader.join()
                #expect(collector.next(201).allSatisfy { $0.code == 0 })
                let own = witnesses.count { $0.isThisThread }
                #expect(own <= 100, "\(own) of 200 by the thread that polls")
            }
        }

        @Test(
            "transmits against association, cancel and close: one completion each, and what they say was sent has come",
            arguments: DriverKind.permitted)
        func raced(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let bytes = pattern(700_000)
                let file = try scratchFile(bytes)
                for round in 0..<30 {
                    let (socket, peer) = try connection(nil, sendBuffer: round % 2 == 0 ? 65_536 : nil)
                    let transmits = (0..<6).map { _ in Overlapped() }
                    let tallies = transmits.map { transmit in
                        let tally = Tally()
                        transmit.event = tally
                        return tally
                    }
                    let accepted = Atomic<Int>(0)
                    let received = Mutex([UInt8]())
                    let reader = startThread("reader") {
                        while true {
                            let part = peer.receive(100_000)
                            received.withLock { $0 += part }
                            if part.count < 100_000 { return }
                        }
                    }
                    let poster = startThread("poster") {
                        for transmit in transmits {
                            guard (try? socket.transmit(transmit, file)) != nil else { return }
                            accepted.add(1, ordering: .releasing)
                        }
                    }
                    for _ in 0..<(round * 7 % 30) { sched_yield() }
                    try socket.associate(with: collector, key: 7, driver: collector.driver)
                    for _ in 0..<(round * 11 % 50) { sched_yield() }
                    if round % 3 == 0 { socket.cancel(transmits[round % 6]) }
                    for _ in 0..<(round * 13 % 300) { sched_yield() }
                    socket.close()
                    poster.join()
                    reader.join()
                    let count = accepted.load(ordering: .acquiring)
                    #expect(eventually { tallies[..<count].allSatisfy { $0.value > 0 } })
                    #expect(tallies.map(\.value) == (0..<6).map { $0 < count ? 1 : 0 })
                    let sent = transmits[..<count].flatMap { bytes[..<$0.bytes] }
                    #expect(received.withLock { $0 == sent }, "round \(round)")
                    #expect(transmits[..<count].allSatisfy { $0.errorCode != 0 || $0.bytes == bytes.count })
                }
            }
        }

        @Test("a piece that would end behind the end of all files is an error, and traps nowhere")
        func farOffset() async {
            await #expect(processExitsWith: .success) {
                inChild {
                    let memory = ck_memfd_create("far", 0)
                    let file = try File("/proc/self/fd/\(memory)", for: .writing)
                    try file.setSize(.max)
                    for kind in DriverKind.permitted {
                        for (before, length) in [(10, 100), (0, 100), (1 << 20, 2 << 20)] {
                            try withCollector(kind) { collector in
                                let (socket, _) = try connection(collector)
                                let operation = Overlapped()
                                operation.offset = .max - Int64(before)
                                try socket.transmit(operation, file, length: length)
                                let code = collector.next()?.code
                                #expect(code != nil && code != 0, "\(String(describing: code))")
                            }
                        }
                    }
                }
            }
        }

        @Test("a peer that is gone is an error for each transmit, and no signal that ends the program")
        func noSignal() async {
            await #expect(processExitsWith: .success) {
                inChild {
                    for kind in DriverKind.permitted {
                        try withCollector(kind) { collector in
                            let (socket, peer) = try connection(collector, sendBuffer: 65_536)
                            let file = try scratchFile(pattern(4 << 20))
                            let operations = (0..<3).map { _ in Overlapped() }
                            for operation in operations { try socket.transmit(operation, file) }
                            try peer.reset()
                            let codes = collector.next(3).map(\.code)
                            #expect(codes.count == 3 && codes.allSatisfy { $0 != 0 }, "\(codes)")
                        }
                    }
                }
            }
        }

        @Test("a large file to a slow reader, in its turn among the sends", arguments: DriverKind.permitted)
        func large(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector, sendBuffer: 65_536)
                let bytes = pattern(5 << 20)
                let file = try scratchFile(bytes)
                let first = Buffer("before")
                let operation = Overlapped()
                let last = Buffer("after")
                try socket.send(first)
                try post(socket, operation, file)
                try socket.send(last)
                let disconnect = Overlapped()
                try socket.disconnect(disconnect)
                #expect(try #require(collector.next()).operation === first)
                #expect(collector.isSilent() && operation.isPending, "nobody reads yet")
                #expect(peer.text(6) == "before" && peer.receive(bytes.count) == bytes)
                #expect(peer.text(5) == "after" && peer.sawEnd)
                let packets = collector.next(3)
                #expect(
                    packets.map { ObjectIdentifier($0.operation) }
                        == [operation, last, disconnect].map(ObjectIdentifier.init))
                #expect(packets.map(\.bytes) == [bytes.count, 5, 0] && packets.allSatisfy { $0.code == 0 })
            }
        }

        @Test("a file that shrinks, one that is closed, and what is refused", arguments: DriverKind.permitted)
        func failures(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector, sendBuffer: 65_536)
                let scratch = try Scratch(pattern(4 << 20))
                let file = try File(scratch.path)
                let operation = Overlapped()
                operation.offset = 4 << 20 + 1
                expectError(EINVAL) { try post(socket, operation, file) }
                operation.offset = -1
                expectError(EINVAL) { try post(socket, operation, file) }
                operation.offset = 0
                expectError(EINVAL) { try post(socket, operation, file, length: Socket.transmitLimit + 1) }
                expectError(EINVAL) { try post(socket, operation, file, length: -1) }
                let head = Buffer("head")
                expectError(EINVAL) {
                    try socket.transmit(operation, file, length: .max, head: head.content)
                }
                try post(socket, operation, file)
                #expect(collector.isSilent())
                truncate(scratch.path, 1 << 20)
                _ = peer.receive(1 << 20)
                let short = try #require(collector.next())
                #expect(short.operation === operation && short.code == SystemError.endOfFile)
                #expect(short.bytes >= 1 << 20)

                let (second, secondPeer) = try connection(collector, sendBuffer: 65_536)
                truncate(scratch.path, 4 << 20)
                let doomed = try File(scratch.path)
                try post(second, operation, doomed)
                #expect(collector.isSilent())
                doomed.close()
                _ = secondPeer.receive(100_000)
                #expect(try #require(collector.next()).code == EBADF)
                expectError(EBADF) { try post(second, operation, doomed) }
            }
        }

        @Test("cancelled and closed while it is under way; the peer resets", arguments: DriverKind.permitted)
        func interrupted(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let file = try scratchFile(pattern(4 << 20))
                for round in 0..<12 {
                    let (socket, peer) = try connection(collector, sendBuffer: 65_536)
                    let operation = Overlapped()
                    try post(socket, operation, file)
                    let send = Buffer("behind")
                    try socket.send(send)
                    // With and without time for it to fill the connection.
                    if round % 2 == 0 { #expect(collector.isSilent(for: .milliseconds(5))) }
                    switch round % 3 {
                    case 0: #expect(socket.cancel(operation))
                    case 1: socket.close()
                    default: try peer.reset()
                    }
                    if round % 3 == 0 {
                        let packet = try #require(collector.next())
                        #expect(
                            packet.operation === operation && packet.code == ECANCELED
                                && packet.bytes < 4 << 20)
                        let got = peer.receive(packet.bytes + 6)
                        #expect(got == pattern(packet.bytes) + Array("behind".utf8))
                        #expect(try #require(collector.next()).operation === send)
                    } else {
                        let packets = collector.next(2)
                        let code = round % 3 == 1 ? ECANCELED : ECONNRESET
                        #expect(packets.count == 2 && packets.allSatisfy { $0.code == code }, "\(packets)")
                        #expect(eventually { socket.descriptor == -1 || round % 3 == 2 })
                    }
                }
                #expect(collector.isSilent())
            }
        }
    }
}
