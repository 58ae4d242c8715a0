import Contexts
import Kernel
import Synchronization

/// An operation of a connection: a chunk of its stream, or a signal, which has no bytes and no number.
public class StreamOperation: Overlapped, @unchecked Sendable {
    /// Whose it is; nil in the pool. While an operation is out, its connection stays.
    final var connection: StreamConnection?
    /// By this a packet's operation is told apart.
    final let isChunk: Bool

    init(isChunk: Bool = false) { self.isChunk = isChunk }
}

/// A piece of a connection's stream: one operation with its number and its buffer, from a pool.
///
/// A chunk that is read into is one of its connection's *slots*, and goes round: it is posted with a buffer that the receive
/// policy lends, completes, waits for its turn, is handed to the handler, and is posted again or goes home when nothing has a
/// share in it any more. (I5.5) Its fields are the driver's while it is pending, the connection's lock guards them while it
/// waits, and then they are its owner's.
public final class Chunk: StreamOperation, Pooled, @unchecked Sendable {
    /// Guarded by the lock of the pool.
    public var link = PoolLink()
    /// Its place in the stream, given together with the post. (I5.1)
    public internal(set) var number = SequenceNumber(0)
    /// The memory that it reads into, or sends from: lent by the receive policy while it is a slot that is out, its own
    /// otherwise; nil where there is none.
    public internal(set) var buffer: UnsafeMutableRawBufferPointer?
    /// The buffer is one of the larger ones, and goes back there.
    var hasLarger = false
    /// The receive policy's own: what it keeps about this slot. It stays with the chunk, also in the pool. Only the policy
    /// looks into it.
    public var attachment: AnyObject?
    /// Bytes in it.
    var count = 0
    /// The system's number when the read has failed, or was never accepted.
    var failure: Int32 = 0
    /// Where it is as a slot; `home` for one that sends.
    var place = Place.home
    /// The neighbour among the slots that are out.
    var nextSlot: Chunk?
    /// The file that it sends behind its own bytes, and how many bytes of it; 0 stands for all.
    var file: File?
    var fileLength = 0
    /// Bytes that it sends together with others, instead of its own.
    var sharedBytes: SharedBytes?
    /// What the handler wants to hear when it has been sent.
    var token: Int?
    /// The next one in the chain or the queue that it is in.
    var following: Chunk?
    /// How many still need what is in it: the call of the handler, code that keeps it, the send that it goes back with.
    let shares = Atomic<Int>(0)
    // Made with the first use, and this object's as long as it lives: a pending operation keeps its buffer.
    private var own: UnsafeMutableRawBufferPointer?
    private let capacity: Int

    /// Where a slot is.
    enum Place: UInt8 {
        /// In the pool, or the chunk is none.
        case home
        /// The driver has it, with its buffer and its number.
        case posted
        /// The policy has it, until there is a buffer for it.
        case inLine
        /// It waits in the window, the handler or other code has it, or it is being sent back.
        case held
        /// As `held`, with a number and nothing else: its read was called off before any byte came.
        case gap
    }

    package init(capacity: Int) {
        self.capacity = capacity
        super.init(isChunk: true)
    }

    /// It is read into, and goes round; otherwise it was taken for sending.
    var isSlot: Bool { place != .home }

    deinit { if let own { BufferMemory.giveBack(own) } }

    /// The chunk's own memory.
    var memory: UnsafeMutableRawBufferPointer {
        if let own { return own }
        let made = BufferMemory.take(capacity)
        own = made
        return made
    }

    /// What was received. Valid during the handler's call, and until `giveBack` for code that keeps it.
    public var contents: UnsafeRawBufferPointer {
        if let sharedBytes { return sharedBytes.contents }
        guard let buffer else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return UnsafeRawBufferPointer(rebasing: buffer[..<count])
    }

    /// Keeps the chunk beyond the handler's call. It goes on counting as one of the connection's pending reads, so a
    /// handler that keeps all of them holds its client back. To be called during that call, or by code that keeps it already;
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
    /// - Returns: false, and nothing has changed, when they do not fit or the chunk is kept.
    public func refill(_ bytes: UnsafeRawBufferPointer) -> Bool {
        // The handler's call has the one share: no other thread has one to give away.
        guard let buffer, bytes.count <= buffer.count, shares.load(ordering: .acquiring) == 1 else {
            return false
        }
        fill(bytes)
        return true
    }

    /// For a receive policy: the slot that it has put into its line may be posted now. A worker asks for the plan again. From
    /// any thread, and without a lock.
    public func granted() {
        guard let connection else { preconditionFailure("granted without having been in a line") }
        connection.hub.wake(connection, self)
    }

    /// Copies bytes in: as many as fit.
    func fill(_ bytes: UnsafeRawBufferPointer) {
        let room = buffer ?? memory
        buffer = room
        count = min(bytes.count, room.count)
        room.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    }

    /// True for the last one.
    func dropShare() -> Bool {
        // What was read from the buffer before may not move behind this: the next read overwrites it.
        let before = shares.subtract(1, ordering: .acquiringAndReleasing).oldValue
        precondition(before > 0, "given back more often than kept")
        return before == 1
    }

    /// Nothing of this life stays.
    func reset() {
        if file != nil { offset = 0 }
        (connection, file, token, sharedBytes, buffer) = (nil, nil, nil, nil, nil)
        (failure, count, place) = (0, 0, .home)
    }
}

/// Bytes that several connections send without a copy for each: they stay until the last send is over.
public final class SharedBytes: Sendable {
    // Never written after `init`, and freed with this object.
    private nonisolated(unsafe) let memory: UnsafeMutableRawBufferPointer

    /// A copy of some bytes.
    public init(_ bytes: UnsafeRawBufferPointer) {
        memory = BufferMemory.take(bytes.count)
        memory.copyMemory(from: bytes)
    }

    deinit { BufferMemory.giveBack(memory) }

    /// The bytes.
    public var contents: UnsafeRawBufferPointer { UnsafeRawBufferPointer(memory) }
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
