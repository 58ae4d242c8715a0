import Kernel

/// What an operation is for. One connection has several at a time, all under one key: only the per-I/O context can
/// tell them apart. (I4.1)
public enum Purpose: UInt8, Sendable {
    /// Nothing: it is in a pool, or about to be posted.
    case none
    /// Waits for the client's bytes.
    case receive
    /// Sends an answer; when it has completed, the same context receives again.
    case reply
    /// Sends something that the client has not asked for; when it has completed, the context is given back.
    case push
}

/// The per-I/O context: one operation with its buffer, its purpose, and the connection that it belongs to.
///
/// It comes from a pool, is posted, is the driver's until its packet comes, and then belongs to the worker that has
/// the packet: that worker posts it again or gives it back. So it needs no lock.
///
/// Win32 counterpart: the struct around an `OVERLAPPED`.
public final class IOContext: Overlapped, Pooled, @unchecked Sendable {
    /// What it is for.
    public internal(set) var purpose = Purpose.none
    /// Set before the post, and let go when the packet has been handled: while an operation is pending, its
    /// connection cannot go. This reference is the pending count. (I4.2)
    var connection: Connection?
    /// Guarded by the lock of the pool.
    public var link = PoolLink()
    // This object's own, for as long as it lives: a pending operation keeps its buffer.
    let memory: UnsafeMutableRawBufferPointer

    /// Bytes in a buffer, unless told otherwise.
    public static let standardCapacity = 1024

    /// A context with a buffer of its own.
    public init(capacity: Int = IOContext.standardCapacity) {
        memory = .allocate(byteCount: capacity, alignment: 64)
        super.init()
    }

    deinit { memory.deallocate() }

    /// Bytes that fit.
    public var capacity: Int { memory.count }

    /// The first bytes of the buffer: those that were received, and nothing that an earlier owner left behind.
    public func contents(_ bytes: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: memory[..<min(max(0, bytes), memory.count)])
    }

    /// Puts bytes into the buffer, as many as fit. Not while the operation is pending.
    public func fill(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count = min(bytes.count, memory.count)
        UnsafeMutableRawBufferPointer(rebasing: memory[..<count]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        return count
    }

    /// Posts a receive with this context alone, for code that keeps its own count.
    public func receive(on socket: Socket) throws(SystemError) {
        purpose = .receive
        try socket.receive(self, into: memory)
    }

    /// Posts a send of the first bytes with this context alone, for code that keeps its own count.
    public func send(_ bytes: Int, as purpose: Purpose = .reply, on socket: Socket) throws(SystemError) {
        self.purpose = purpose
        try socket.send(self, from: contents(bytes))
    }
}
