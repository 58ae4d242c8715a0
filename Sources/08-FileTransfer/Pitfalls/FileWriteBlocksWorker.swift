import CKernel
import CompletionPorts
import Contexts
import FileTransfer
import Glibc
import Kernel
import Reordering
import Stage
import Synchronization

/// ⚠︎ Broken on purpose: writes what it receives with a plain call, in the handler.
final class BrokenWriter: StreamHandler {
    private let disk: Int32
    /// Opens when the worker is about to write; its thread's number.
    let isWriting = Gate()
    let worker = Atomic<Int32>(0)

    init(_ disk: Int32) { self.disk = disk }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        worker.store(Kernel.Thread.currentID, ordering: .releasing)
        isWriting.open()
        _ = write(disk, chunk.contents.baseAddress, chunk.contents.count)
    }
}

/// A write waits for the disk, and the worker with it.
public enum FileWriteBlocksWorker {
    private static let pings = 100
    /// F_GETPIPE_SZ, which the C library hides.
    private static let pipeSize: Int32 = 1032

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "file-write-blocks-worker",
        title: "the worker that received a file's bytes waits for the disk, and nobody else is served",
        broken: { driver in
            // A disk that takes its time: a pipe that nobody reads, full but for the first page.
            var ends: [Int32] = [-1, -1]
            guard pipe(&ends) == 0 else { throw SystemError(errno, attempted: "make a pipe") }
            defer { for end in ends { close(end) } }
            let capacity = Int(ck_fcntl(ends[1], pipeSize, 0))
            let filler = [UInt8](repeating: 0, count: capacity)
            guard write(ends[1], filler, capacity) == capacity else {
                throw SystemError(errno, attempted: "fill it")
            }

            var options = StreamHub.Options()
            options.workers = 1
            options.concurrency = 1
            options.port.driver = driver
            let hub = try StreamHub(options)
            let writer = BrokenWriter(ends[1])
            let fileAddress = try hub.listen { _ in writer }
            let echoAddress = try hub.listen { _ in Echo() }
            let file = try Socket.connected(to: fileAddress)
            let ping = try Pinger(echoAddress)
            let before = try ping.run(within: 5_000)
            _ = try send([UInt8](repeating: 1, count: 1_000), file)
            writer.isWriting.pass()
            let isBlocked = eventually {
                Kernel.Thread.state(of: writer.worker.load(ordering: .acquiring)) == .blocked
            }
            let during = try ping.run(within: 300)
            // The disk goes on.
            var sink = [UInt8](repeating: 0, count: capacity)
            _ = read(ends[0], &sink, capacity)
            let after = try ping.hear(within: 5_000)
            let isClean = hub.stop()
            return Observation(
                happened: before && isBlocked && !during && after && isClean,
                lines: [
                    "one worker, inside a write to a disk that takes its time",
                    "another client's ping: no answer in 0.3 s; answered when the disk had gone on: \(after)",
                ])
        },
        fixed: { driver in
            let folder = try ScratchFolder()
            let home = try ScratchFolder()
            var options = Stand.options(driver, folder: folder.path)
            options.preallocates = false
            options.streams.workers = 1
            options.streams.concurrency = 1
            options.streams.port.noticesBlocking = false
            let answered = Counter()
            let server = try FileSide(options) { words, connection in try? connection.reply(words) }
            let address = try server.listen()
            // A disk that takes its time: whatever would carry out a write is held in the completion of a read.
            let held = try driver == .epoll ? HeldHelpers(server.port, home.make("any", bytes: 1)) : nil
            let clients = try FileSide(Stand.options(driver))
            let outcome = Outcome()
            try clients.connect(to: address).send(file: try home.make("a", bytes: 60_000), outcome.observer)
            // Its bytes have come; on epoll they wait for the disk.
            let isWaiting = held == nil ? true : eventually { server.files.pendingWrites > 0 }
            let ping = try ScriptedPeer(to: address)
            var slowest: UInt64 = 0
            for _ in 0..<pings {
                let start = monotonicNanoseconds()
                try ping.say("ping")
                guard try ping.hearWords() != nil else { break }
                slowest = max(slowest, monotonicNanoseconds() - start)
                answered.add()
            }
            let written = folder.names.first.flatMap { folder.contents($0)?.count } ?? 0
            let wasHeld = held == nil || written == 0 && server.files.pendingWrites > 0 && !outcome.hasEnded
            held?.release()
            let isWhole =
                (try? outcome.wait()?.get()) != nil && folder.contents("a") == ScratchFolder.pattern(60_000)
            let isClean = clients.stop() && server.stop()
            return Observation(
                happened: !isWaiting || !wasHeld || answered.value != pings || !isWhole || !isClean,
                lines: [
                    "one worker; "
                        + (held == nil
                            ? "the kernel writes the file"
                            : "the disk is held, and \(written) bytes are written"),
                    "another client's pings: \(answered.value) of \(pings) answered, the slowest after "
                        + readable(.nanoseconds(Int64(slowest))),
                    "then the disk goes on, and the file arrives whole: \(isWhole)",
                ])
        })

    private static func send(_ bytes: [UInt8], _ socket: Socket) throws -> Int? {
        try bytes.withUnsafeBytes { try socket.sendNow($0) }
    }
}

/// A client that says one byte and waits for it to come back.
private struct Pinger {
    private let socket: Socket

    init(_ address: Address) throws(SystemError) {
        socket = try Socket.connected(to: address)
        try socket.setNoDelay()
    }

    func run(within milliseconds: Int32) throws -> Bool {
        let byte: [UInt8] = [7]
        _ = try byte.withUnsafeBytes { try socket.sendNow($0) }
        return try hear(within: milliseconds)
    }

    func hear(within milliseconds: Int32) throws -> Bool {
        var wish = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        if poll(&wish, 1, milliseconds) == 0 { return false }
        var byte: [UInt8] = [0]
        return try byte.withUnsafeMutableBytes { try socket.receiveNow(into: $0) } == 1 && byte[0] == 7
    }
}

/// Holds every thread that carries out file operations for a port: each is kept in the completion of a read.
private final class HeldHelpers {
    private let gate = Gate()
    private let file: File
    private var reads: [Overlapped] = []
    private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 16)

    /// More than there are threads.
    private static let count = 8

    private final class Held: Signal, @unchecked Sendable {
        let gate: Gate
        let arrived: Counter

        init(_ gate: Gate, _ arrived: Counter) {
            self.gate = gate
            self.arrived = arrived
            super.init()
        }

        override func set() {
            arrived.add()
            gate.pass()
        }
    }

    init(_ port: CompletionPort, _ path: String) throws {
        file = try File(path)
        try port.associate(file, key: 0)
        let arrived = Counter()
        for index in 0..<HeldHelpers.count {
            let read = Overlapped()
            read.event = Held(gate, arrived)
            read.suppressesPacket = true
            // Across the end of the file: what lies in memory whole, whoever posts reads himself.
            try file.read(
                read, into: UnsafeMutableRawBufferPointer(rebasing: memory[(index * 8)..<(index * 8 + 8)]))
            reads.append(read)
        }
        // As many as there are threads; those beyond wait in front of everything that comes now.
        guard eventually({ arrived.value >= 4 }) else {
            throw SystemError(ETIMEDOUT, attempted: "hold the disk")
        }
    }

    func release() { gate.open() }

    deinit {
        gate.open()
        _ = eventually { reads.allSatisfy { !$0.isPending } }
        memory.deallocate()
    }
}
