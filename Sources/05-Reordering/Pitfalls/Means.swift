import CKernel
import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Stage

/// Both ends of a TCP connection on the loopback. Neither blocks.
public struct Pair: Sendable {
    /// The end that a port or a hub looks after.
    public let server: Socket
    /// The other side.
    public let client: Socket

    /// Connects them.
    public init() throws(SystemError) {
        let listener = try Socket.listener(on: .loopback())
        client = try Socket.connected(to: try listener.localAddress)
        try listener.setBlocking(true)
        guard let accepted = try listener.acceptNow() else {
            throw SystemError(EAGAIN, attempted: "accept a connection that stands")
        }
        server = accepted
        listener.close()
        try client.setNoDelay()
        try server.setNoDelay()
    }
}

extension Socket {
    /// Sends bytes with plain calls, and waits where the system takes none.
    public func say(_ bytes: [UInt8], within patience: Duration = Gate.patience) throws(SystemError) {
        let deadline = Deadline.after(patience)
        var sent = 0
        while sent < bytes.count {
            let result = bytes.withUnsafeBytes { memory in
                Result { () throws(SystemError) in
                    try sendNow(UnsafeRawBufferPointer(rebasing: memory[sent...]))
                }
            }
            if let more = try result.get() {
                sent += more
                continue
            }
            if deadline.hasPassed { throw SystemError(ETIMEDOUT, attempted: "say \(bytes.count) bytes") }
            waitFor(POLLOUT, deadline)
        }
    }

    /// The same for a text.
    public func say(_ text: String) throws(SystemError) { try say(Array(text.utf8)) }

    /// Takes up to `count` bytes with plain calls: fewer only at the end of the stream or when the time is over.
    public func hear(_ count: Int, within patience: Duration = Gate.patience) throws(SystemError) -> [UInt8] {
        let deadline = Deadline.after(patience)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, count), alignment: 1)
        defer { memory.deallocate() }
        var heard = 0
        while heard < count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: memory[heard..<count])
            if let more = try receiveNow(into: rest) {
                if more == 0 { break }
                heard += more
                continue
            }
            if deadline.hasPassed { break }
            waitFor(POLLIN, deadline)
        }
        return Array(memory[..<heard])
    }

    private func waitFor(_ wish: Int32, _ deadline: Deadline) {
        var wish = pollfd(fd: descriptor, events: Int16(wish), revents: 0)
        poll(&wish, 1, Int32(clamping: deadline.remaining / 1_000_000 + 1))
    }

    /// Bytes that have arrived and that nobody has read.
    public var unread: Int {
        var count: Int32 = 0
        _ = ck_ioctl_int(descriptor, UInt(FIONREAD), &count)
        return Int(count)
    }
}

/// Bytes as a text.
public func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// A handler that keeps everything that it receives, for as long as a scenario lasts.
public final class Sink: StreamHandler {
    private let bytes = Guarded<[UInt8]>([])
    private let end = Guarded<CloseReason?>(nil)
    private let atEnd = Guarded<Int?>(nil)
    private let before: @Sendable (Chunk) -> Void
    /// Opens when the connection is over.
    public let over = Gate()

    /// - Parameter before: Called with each chunk before its bytes are taken.
    public init(_ before: @escaping @Sendable (Chunk) -> Void = { _ in }) { self.before = before }

    /// All bytes so far, in the order of the calls.
    public var received: [UInt8] { bytes.locked { $0 } }

    /// How many bytes had been received when the end of the stream was announced.
    public var receivedAtEnd: Int? { atEnd.locked { $0 } }

    /// Why the connection is over.
    public var reason: CloseReason? { end.locked { $0 } }

    /// Takes its bytes.
    public func received(_ chunk: Chunk, on connection: StreamConnection) {
        before(chunk)
        bytes.locked { $0.append(contentsOf: chunk.contents) }
    }

    /// Notes what had been received by then.
    public func ended(_ connection: StreamConnection) {
        let count = received.count
        atEnd.locked { $0 = count }
        connection.finish()
    }

    /// Keeps the reason.
    public func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        end.locked { $0 = reason }
        over.open()
    }
}

/// A hub for a scenario: chunks of a few bytes, and as many workers as may be held back.
public func makeHub(
    _ driver: DriverKind, reads: Int, workers: Int = 2, capacity: Int = 4,
    _ configure: (inout StreamHub.Options) -> Void = { _ in }
) throws(SystemError) -> StreamHub {
    var options = StreamHub.Options()
    options.workers = workers
    options.concurrency = workers
    options.pendingReads = reads
    options.chunkCapacity = capacity
    options.port.driver = driver
    configure(&options)
    return try StreamHub(options)
}

/// A probe that holds the worker who has read `number` back until `gate` opens, and opens it when somebody has `opener`.
/// Of two workers the first is then held while the second has handled everything between the two.
public func holding(_ number: UInt32, until opener: UInt32, _ gate: Gate) -> StreamProbe {
    var probe = StreamProbe()
    probe.arrived = { chunk in
        guard chunk.kind == .receive else { return }
        if chunk.number.value == number { gate.pass() }
        if chunk.number.value == opener { gate.open() }
    }
    return probe
}

/// A read of a program that has no hub: an operation, its buffer, and its number.
final class Read: Overlapped, Pooled, @unchecked Sendable {
    /// Guarded by the lock of the pool.
    var link = PoolLink()
    var number = 0
    // This object's own, for as long as it lives: a pending operation keeps its buffer.
    let memory: UnsafeMutableRawBufferPointer

    init(capacity: Int = 4) {
        memory = .allocate(byteCount: capacity, alignment: 8)
        super.init()
    }

    deinit { memory.deallocate() }

    /// What was received.
    var contents: [UInt8] { Array(memory[..<bytes]) }

    func post(on socket: Socket) throws(SystemError) { try socket.receive(self, into: memory) }
}
