import CKernel
import Glibc
import Kernel
import Stage
import Synchronization
import Testing

/// What a test dequeues.
struct Packet: CustomStringConvertible {
    let operation: Overlapped
    let bytes: Int
    let code: Int32
    let key: UInt

    var description: String { "\(operation.kind): \(bytes) bytes, error \(code), key \(key)" }
}

/// The smallest completion target: a queue, a driver of its own, and a thread that polls it.
final class Collector: CompletionTarget, @unchecked Sendable {
    static let patience = Duration.seconds(20)

    let driver: Driver
    private let monitor = Monitor()
    private var packets: [Packet] = []  // under the monitor
    private let isEnding = Atomic<Bool>(false)
    private var threads: [Kernel.Thread] = []

    init(
        _ kind: DriverKind, pollers: Int = 1, waiters: Int = 1, submission: Submission = .atOnce
    ) throws {
        driver = try Driver.make(kind, waiters: max(waiters, pollers), submission: submission)
        super.init()
        // The type is the request, the value the answer: nobody falls back without being asked.
        #expect(driver.kind == kind)
        for index in 0..<pollers { threads.append(try Kernel.Thread("poller \(index)") { self.work() }) }
    }

    private func work() {
        while !isEnding.load(ordering: .acquiring) {
            var completed = CompletionList()
            driver.poll(for: self, until: .never, &completed)
            take(&completed)
        }
        driver.wake()
    }

    /// Ends the polling threads.
    func stop() {
        isEnding.store(true, ordering: .releasing)
        driver.wake()
        for thread in threads { thread.join() }
        threads = []
    }

    override func take(_ completed: inout CompletionList) {
        monitor.locked {
            while let reference = completed.popFirst() {
                let operation = reference.takeRetainedValue()
                packets.append(
                    Packet(
                        operation: operation, bytes: operation.bytes, code: operation.errorCode,
                        key: operation.completionKey))
                operation.wasDequeued()
            }
            monitor.broadcast()
        }
    }

    /// Polls once on the calling thread.
    func poll(until deadline: Deadline) {
        var completed = CompletionList()
        driver.poll(for: self, until: deadline, &completed)
        take(&completed)
    }

    /// The next packet, or nil when none comes in time.
    func next(within patience: Duration = patience) -> Packet? {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while packets.isEmpty {
                if !monitor.wait(until: deadline), packets.isEmpty { return nil }
            }
            return packets.removeFirst()
        }
    }

    /// The next packets, as many as come in time.
    func next(_ count: Int) -> [Packet] {
        var packets: [Packet] = []
        while packets.count < count, let packet = next() { packets.append(packet) }
        return packets
    }

    /// Whether nothing comes for a while. Says nothing about later: use it only beside a positive check.
    func isSilent(for time: Duration = .milliseconds(20)) -> Bool { next(within: time) == nil }

    var count: Int { monitor.locked { packets.count } }
}

/// Runs a test's body with a collector that is stopped afterwards, whatever happens.
func withCollector<Result>(
    _ kind: DriverKind, pollers: Int = 1, submission: Submission = .atOnce,
    _ body: (Collector) throws -> Result
) throws -> Result {
    let collector = try Collector(kind, pollers: pollers, submission: submission)
    defer { collector.stop() }
    return try body(collector)
}

/// An operation with memory of its own.
final class Buffer: Overlapped, @unchecked Sendable {
    // This operation's alone, freed with it; it lives as long as it is pending.
    let memory: UnsafeMutableRawBufferPointer

    init(_ count: Int) {
        memory = .allocate(byteCount: max(1, count), alignment: 16)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        self.count = count
        super.init()
    }

    convenience init(_ bytes: [UInt8]) {
        self.init(bytes.count)
        memory.copyBytes(from: bytes)
    }

    convenience init(_ text: String) { self.init(Array(text.utf8)) }

    deinit { memory.deallocate() }

    private let count: Int

    var area: UnsafeMutableRawBufferPointer { .init(rebasing: memory[..<count]) }
    var content: UnsafeRawBufferPointer { .init(area) }
    /// What was received, as text.
    var text: String { String(decoding: memory[..<bytes], as: UTF8.self) }
}

extension Socket {
    func receive(_ buffer: Buffer) throws { try receive(buffer, into: buffer.area) }
    func send(_ buffer: Buffer) throws { try send(buffer, from: buffer.content) }
}

/// The other side of a connection: blocking calls with a bound, on a socket that no driver knows.
final class Peer: @unchecked Sendable {
    let socket: Socket

    init(_ socket: Socket) throws {
        self.socket = socket
        try socket.setBlocking(true)
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(
                socket.descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    convenience init(connectingTo address: Address) throws { try self.init(.connected(to: address)) }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            guard let count = try? rest.withUnsafeBytes({ try socket.sendNow($0) }), count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }

    /// Receives exactly so many bytes, or fewer if the stream ends or fails, or nothing comes for twenty seconds.
    func receive(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = bytes.withUnsafeMutableBytes {
                try? socket.receiveNow(into: .init(rebasing: $0[filled...]))
            }
            guard let got = got ?? nil, got > 0 else { break }
            filled += got
        }
        return Array(bytes[..<filled])
    }

    func text(_ count: Int) -> String { String(decoding: receive(count), as: UTF8.self) }

    /// Whether the stream has ended, rather than failed or stayed silent.
    var sawEnd: Bool {
        var byte: UInt8 = 0
        let count = withUnsafeMutableBytes(of: &byte) { bytes in try? socket.receiveNow(into: bytes) }
        return count == .some(.some(0))
    }

    func reset() throws {
        try socket.setAbortiveClose()
        socket.close()
    }
}

/// Two ends of a TCP connection; ours is associated with the collector, under key 7.
func connection(
    _ collector: Collector?, sendBuffer: Int? = nil, key: UInt = 7
) throws -> (Socket, Peer) {
    let listener = try Socket.listener(on: .loopback())
    try listener.setBlocking(true)
    let peer = try Peer(connectingTo: listener.localAddress)
    let socket = try #require(try listener.acceptNow())
    try socket.setNoDelay()
    if let sendBuffer {
        try socket.setBufferSizes(send: sendBuffer)
        // Not smaller: a window below the loopback's segments makes TCP wait for its timers.
        try peer.socket.setBufferSizes(receive: 256 * 1024)
    }
    if let collector { try socket.associate(with: collector, key: key, driver: collector.driver) }
    return (socket, peer)
}

/// Bytes that have come and have not been read.
func unread(_ socket: Socket) -> Int {
    var count: Int32 = 0
    _ = ck_ioctl_int(socket.descriptor, UInt(FIONREAD), &count)
    return Int(count)
}

/// Expects an error with the system's number.
func expectError(
    _ code: Int32, _ body: () throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
) {
    do {
        try body()
        Issue.record("nothing was thrown", sourceLocation: sourceLocation)
    } catch let error as SystemError {
        #expect(error.code == code, "\(error)", sourceLocation: sourceLocation)
    } catch {
        Issue.record("\(error)", sourceLocation: sourceLocation)
    }
}

/// Bytes that tell where they belong: they repeat, but not at any distance that a buffer or a page has.
func pattern(_ count: Int, from start: Int = 0) -> [UInt8] { Array(Pattern.bytes[start..<start + count]) }

private enum Pattern {
    static let bytes: [UInt8] = {
        let period = (0..<65_521).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        var bytes: [UInt8] = []
        while bytes.count < 6 << 20 { bytes += period }
        return bytes
    }()
}

/// The suite that every driver passes. Its tests block, so they run one after the other.
@Suite("kernel", .serialized) struct KernelSuite {}
