import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Stage

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
    _ driver: DriverKind?, reads: Int, workers: Int = 2, capacity: Int = 4,
    _ configure: (inout StreamHub.Options) -> Void = { _ in }
) throws(SystemError) -> StreamHub {
    var options = StreamHub.Options()
    options.workers = workers
    options.concurrency = workers
    options.pendingReads = reads
    options.chunkCapacity = capacity
    options.maximumReadSize = capacity
    options.port.driver = driver
    configure(&options)
    return try StreamHub(options)
}

/// A probe that holds the worker who has read `number` back until `gate` opens, and opens it when somebody has `opener`.
/// Of two workers the first is then held while the second has handled everything between the two.
package func holding(_ number: UInt32, until opener: UInt32, _ gate: Gate) -> StreamProbe {
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
