import CKernel
import FileTransfer
import Framing
import Glibc
import Kernel
import Stage
import Synchronization

/// One large file over the loopback: chapter 08's exchange, with one worker on each side, beside a plain loop of sendfile
/// with one thread on each side. The loop's receiver writes to a file on the same terms: reserved first, and written from
/// a buffer of the same size. It is measured twice: moving the bytes only, and summing them up on both sides, as the
/// exchange does.
enum FileTransfers {
    private static let size = 1 << 30
    private static let folder = "/tmp/completion-ports-bench-\(getpid())"
    private static let name = "large"
    private static let plainLoop = "plain sendfile loop"
    private static let summingLoop = "plain loop that sums up"
    private static let buffer = TransferOptions().streams.chunkCapacity

    static func measure(into figures: inout Figures) throws {
        for path in [folder, folder + "/there"] {
            guard mkdir(path, 0o755) == 0 || errno == EEXIST else {
                throw SystemError(errno, attempted: "make \(path)")
            }
        }
        defer {
            unlink("\(folder)/\(name)")
            rmdir(folder + "/there")
            rmdir(folder)
        }
        try make("\(folder)/\(name)")
        figures.add(plainLoop, "MB/s", try rate { try plain(sums: false) })
        figures.add(summingLoop, "MB/s", try rate { try plain(sums: true) })
        for driver in DriverKind.permitted {
            figures.add("file transfer, \(driver)", "MB/s", try rate { try transfer(driver) })
        }
    }

    static func compare(_ figures: inout Figures) {
        for driver in DriverKind.permitted {
            figures.compare("file transfer, \(driver)", to: summingLoop, .atLeast(0.95))
            figures.compare("file transfer, \(driver)", to: plainLoop)
        }
    }

    private static func rate(_ body: () throws -> Void) throws -> Double {
        fetchMemory()
        let start = monotonicNanoseconds()
        try body()
        let elapsed = Double(monotonicNanoseconds() - start)
        unlink("\(folder)/there/\(name)")
        return Double(size) * 1_000 / elapsed
    }

    /// A virtual machine has to ask for memory that nobody has touched for a while, and the arriving file needs a lot. So
    /// it is asked for before the clock starts.
    private static func fetchMemory() {
        let count = size + size / 4
        let memory = mmap(
            nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_POPULATE), -1, 0)
        if memory != MAP_FAILED { munmap(memory, count) }
    }

    private static func make(_ path: String) throws {
        let file = try File(path, for: .writing)
        defer { file.close() }
        var word: UInt64 = 1
        let block = (0..<1 << 17).map { _ in
            word = word &* 6_364_136_223_846_793_005 &+ 1
            return word
        }
        for _ in 0..<size >> 20 {
            guard block.withUnsafeBytes({ write(file.descriptor, $0.baseAddress, $0.count) }) == 1 << 20
            else {
                throw SystemError(errno, attempted: "write \(path)")
            }
        }
        // What is still on its way to the disk would be charged to whoever is measured first.
        try file.flush()
    }

    /// The two ends of a connection, for either way. The sender does not pace itself: an algorithm that does, as BBR, sets
    /// a timer for each few segments, and on the loopback it is those that would be measured.
    private static func connection() throws -> (sender: Socket, receiver: Socket) {
        let listener = try Socket.listener(on: .loopback())
        defer { listener.close() }
        try listener.setBlocking(true)
        let sender = try Socket.connected(to: try listener.localAddress)
        let algorithm = "reno"
        setsockopt(
            sender.descriptor, Int32(IPPROTO_TCP), TCP_CONGESTION, algorithm, socklen_t(algorithm.utf8.count))
        guard let receiver = try listener.acceptNow() else { throw SystemError(EAGAIN, attempted: "accept") }
        return (sender, receiver)
    }

    // MARK: The exchange

    private static func transfer(_ driver: DriverKind) throws {
        var options = TransferOptions(folder: folder + "/there")
        options.streams.port.driver = driver
        options.streams.workers = 1
        let server = try FileEnd(options)
        var choices = TransferOptions()
        choices.streams.port.driver = driver
        choices.streams.workers = 1
        let client = try FileEnd(choices)
        let (sender, receiver) = try connection()
        _ = try server.adopt(receiver)
        let receipt = try client.adopt(sender).sendAndWait("\(folder)/\(name)")
        client.stop()
        server.stop()
        guard receipt.bytes == size else { throw SystemError(EIO, attempted: "send a file") }
    }

    // MARK: The plain loop

    private static func plain(sums: Bool) throws {
        let (sender, receiver) = try connection()
        for socket in [sender, receiver] { try socket.setBlocking(true) }
        let source = try File("\(folder)/\(name)")
        let sent = Atomic<UInt64>(0)
        let thread = startThread("plain sender") {
            var position: off_t = 0
            var checksum = Checksum()
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: buffer, alignment: 4096)
            defer { memory.deallocate() }
            sending: while position < size {
                var end = size
                if sums {
                    let count = pread(source.descriptor, memory.baseAddress, buffer, position)
                    checksum.add(UnsafeRawBufferPointer(rebasing: memory[..<max(0, count)]))
                    end = Int(position) + max(1, count)
                }
                while position < end {
                    let count = sendfile(
                        sender.descriptor, source.descriptor, &position, end - Int(position))
                    if count <= 0 { break sending }
                }
            }
            sent.store(checksum.value, ordering: .relaxed)
            try? sender.shutDownSending()
        }
        let target = try File("\(folder)/there/\(name)", for: .writing)
        _ = ck_fallocate(target.descriptor, 0, 0, Int64(size))
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: buffer, alignment: 4096)
        defer { memory.deallocate() }
        var done = 0
        var checksum = Checksum()
        while let count = try receiver.receiveNow(into: memory), count > 0 {
            if sums { checksum.add(UnsafeRawBufferPointer(rebasing: memory[..<count])) }
            guard pwrite(target.descriptor, memory.baseAddress, count, done) == count else {
                throw SystemError(errno, attempted: "write")
            }
            done += count
        }
        thread.join()
        for handle in [sender, receiver] { handle.close() }
        for file in [source, target] { file.close() }
        let isRight = checksum.value == sent.load(ordering: .relaxed)
        guard done == size, isRight else { throw SystemError(EIO, attempted: "send a file plainly") }
    }
}

/// One side: connections that carry files.
struct FileEnd {
    let files: FileService
    let service: FramedService<LengthPrefixed>

    init(_ options: TransferOptions) throws(SystemError) {
        files = try FileService(options)
        service = try FramedService(TransferMessage.codec, options: options.streams, round: files.round)
    }

    func listen() throws(SystemError) -> Address {
        let files = files
        return try service.listen { FileTransfer(files) }
    }

    func connect(to address: Address) throws(SystemError) -> FileTransfer {
        let transfer = FileTransfer(files)
        try service.connect(to: address, handler: transfer)
        return transfer
    }

    func adopt(_ socket: Socket) throws(SystemError) -> FileTransfer {
        let transfer = FileTransfer(files)
        try service.adopt(socket, handler: transfer)
        return transfer
    }

    @discardableResult
    func stop() -> Bool { service.stop() && files.isIdle }
}
