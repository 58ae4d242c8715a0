import Contexts
import Kernel
import Synchronization

/// A piece of a connection's stream: one operation with its number and its buffer, from a pool.
///
/// A chunk that is read into belongs to its connection for good, and goes round: it is posted, completes, waits for its
/// turn, is handed to the handler, and is posted again when nobody has a share in it any more. (I5.5) Its fields are the
/// driver's while it is pending, the connection's lock guards them while it waits, and then they are its owner's.
public final class Chunk: Overlapped, Pooled, @unchecked Sendable {
    /// Guarded by the lock of the pool.
    public var link = PoolLink()
    /// Its place in the stream, given together with the post. (I5.1)
    public internal(set) var number = SequenceNumber(0)
    /// Bytes in it.
    var count = 0
    /// The system's number when the read has failed, or was never accepted.
    var failure: Int32 = 0
    /// Whose it is; nil in the pool. While somebody has a chunk, its connection stays.
    var connection: StreamConnection?
    /// Bytes are read into it; otherwise it is for sending.
    var isReader = false
    /// The file that it sends behind its own bytes, and how many bytes of it; 0 stands for all.
    var file: File?
    var fileLength = 0
    /// What the handler wants to hear when it has been sent.
    var token: Int?
    /// The next one in the chain or the queue that it is in.
    var following: Chunk?
    /// The receive policy's own: what it keeps about this slot. It stays with the chunk, also in the pool. Only the policy
    /// looks into it.
    public var attachment: AnyObject?
    /// Who still needs what is in it: the call of the handler, those who keep it, the send that it goes back with.
    let shares = Atomic<Int>(0)
    // This object's own, for as long as it lives: a pending operation keeps its buffer.
    let memory: UnsafeMutableRawBufferPointer

    init(capacity: Int) {
        memory = BufferMemory.take(capacity)
        super.init()
    }

    deinit { BufferMemory.giveBack(memory) }

    /// What was received. Valid during the handler's call, and until `giveBack` for who keeps it.
    public var contents: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }

    /// Keeps the chunk beyond the handler's call. It goes on counting as one of the connection's pending reads, so a
    /// handler that keeps all of them holds its client back. To be called during that call, or by who keeps it already;
    /// each `keep` needs one `giveBack`.
    public func keep() {
        let before = shares.add(1, ordering: .relaxed).oldValue
        precondition(before > 0, "kept after it was given back")
    }

    /// Ends what `keep` began. Any thread may call it; the bytes are not the caller's any more.
    public func giveBack() {
        guard let connection else { preconditionFailure("given back without having been kept") }
        if dropShare() { connection.readAgain(self) }
    }

    /// Puts other bytes in the place of those that were received, for `send(chunk)` to send. To be called in the handler's
    /// call, when what was received is not needed any more.
    ///
    /// - Returns: false, and nothing has changed, when they do not fit or somebody keeps the chunk.
    public func refill(_ bytes: UnsafeRawBufferPointer) -> Bool {
        // The handler's call has the one share: nobody can get another from anybody else.
        guard bytes.count <= memory.count, shares.load(ordering: .acquiring) == 1 else { return false }
        fill(bytes)
        return true
    }

    /// True for the last one.
    func dropShare() -> Bool {
        // What was read from the buffer before may not move behind this: the next read overwrites it.
        let before = shares.subtract(1, ordering: .acquiringAndReleasing).oldValue
        precondition(before > 0, "given back more often than kept")
        return before == 1
    }
}

/// Chunks one behind the other, linked through themselves.
struct ChunkQueue: ~Copyable {
    private var first: Chunk?
    private var last: Chunk?

    var isEmpty: Bool { first == nil }

    mutating func append(_ chunk: Chunk) {
        if let last { last.following = chunk } else { first = chunk }
        last = chunk
    }

    mutating func popFirst() -> Chunk? {
        guard let chunk = first else { return nil }
        first = chunk.following
        chunk.following = nil
        if first == nil { last = nil }
        return chunk
    }

    /// The first chunk with all the others behind it.
    consuming func chain() -> Chunk? { first }
}
