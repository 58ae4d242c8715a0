import Glibc
import Kernel

/// An operation that a task awaits, with the memory that it works on. A task makes one, or one for each direction, and uses it
/// again and again: once warm, an await allocates nothing.
///
/// The memory belongs to this object, and a pending operation keeps its object: nobody can free it too early. And nobody can
/// use it too early, since the await does not return before the packet has come, whether the task is cancelled or not. (I13.3)
///
/// One await at a time; a second one meanwhile is refused with EALREADY. Win32 counterpart: an `OVERLAPPED` with its buffer.
public final class AwaitedOperation: Overlapped, @unchecked Sendable {
    /// Bytes of memory.
    public let capacity: Int
    private let executor: PortExecutor
    // This object's own, from first to last.
    private let memory: UnsafeMutableRawBufferPointer
    private let lock = Lock()
    // Guarded by the lock.
    private var waiter: UnsafeContinuation<Void, Never>?
    private var isAwaited = false
    private var isCancelled = false
    private var refusal: SystemError?

    /// An operation whose packets go to an executor's port.
    public init(on executor: PortExecutor, capacity: Int = 4096) {
        self.executor = executor
        self.capacity = max(1, capacity)
        memory = BufferMemory.take(self.capacity)
        super.init()
    }

    deinit { BufferMemory.giveBack(memory) }

    /// Lends the memory: to be filled before a send or a write, to be read after a receive or a read.
    ///
    /// - Throws: EALREADY while the operation is awaited: then the memory is the system's.
    public func withMemory<Result>(
        _ body: (UnsafeMutableRawBufferPointer) -> Result
    ) throws(SystemError) -> Result {
        try lock.locked { () throws(SystemError) in
            if isAwaited { throw SystemError(EALREADY, attempted: "use the memory of a pending operation") }
            return body(memory)
        }
    }

    /// A copy of the first `count` bytes. - Throws: as `withMemory`.
    public func copy(_ count: Int) throws(SystemError) -> [UInt8] {
        try withMemory { Array($0[..<min(max(0, count), capacity)]) }
    }

    /// Copies bytes into the memory, as many as fit, and says how many. - Throws: as `withMemory`.
    @discardableResult
    public func fill(_ bytes: [UInt8]) throws(SystemError) -> Int {
        try withMemory { memory in
            let count = min(bytes.count, capacity)
            bytes.withUnsafeBytes { memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            return count
        }
    }

    // MARK: One await

    /// Posts, and suspends the task until the packet has come.
    ///
    /// The packet resumes the task, or the post that was refused does; a cancel never does. (I13.4) It only asks, and the
    /// packet tells what came of it: bytes that were quicker are the caller's. (I13.5)
    func perform(
        on handle: Handle, isolation: isolated (any Actor)?,
        _ post: (UnsafeMutableRawBufferPointer) throws(SystemError) -> Void
    ) async throws(SystemError) -> Int {
        try claim()
        await withTaskCancellationHandler(
            operation: {
                await withUnsafeContinuation(isolation: isolation) { continuation in
                    begin(continuation, on: handle, post)
                }
            }, onCancel: { askBack(from: handle) }, isolation: isolation)
        return try outcome()
    }

    private func claim() throws(SystemError) {
        try lock.locked { () throws(SystemError) in
            if isAwaited {
                throw SystemError(EALREADY, attempted: "await an operation that is awaited already")
            }
            isAwaited = true
            isCancelled = false
            refusal = nil
        }
    }

    private func begin(
        _ continuation: UnsafeContinuation<Void, Never>, on handle: Handle,
        _ post: (UnsafeMutableRawBufferPointer) throws(SystemError) -> Void
    ) {
        lock.lock()
        do throws(SystemError) {
            if isCancelled { throw SystemError(SystemError.cancelled, attempted: "begin an operation") }
            try executor.begins(self, on: handle)
            // Written before the post; behind it the packet may be anywhere. The lock holds it, and a cancel, back until this
            // call has returned.
            waiter = continuation
            try post(memory)
            lock.unlock()
        } catch {
            waiter = nil
            refusal = error
            lock.unlock()
            executor.ended(self)
            continuation.resume()
        }
    }

    private func askBack(from handle: Handle) {
        lock.locked {
            isCancelled = true
            if waiter != nil { handle.cancel(self) }
        }
    }

    /// The packet has come.
    func completed(_ executor: PortExecutor) {
        let waiter = lock.locked { self.waiter.take() }
        executor.ended(self)
        if let waiter { executor.resume(waiter) }
    }

    private func outcome() throws(SystemError) -> Int {
        let refusal = lock.locked {
            isAwaited = false
            return self.refusal
        }
        if let refusal { throw refusal }
        if let error { throw error }
        return bytes
    }
}
