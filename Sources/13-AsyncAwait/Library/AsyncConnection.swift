import Contexts
import Glibc
import Kernel
import Reordering

/// A connection of chapter 05, awaited: what its handler would be called with, a task asks for.
///
/// It belongs to one scope, `use`, which ends it: whatever way the scope is left, the connection is over behind it, and every
/// chunk is back. Reading is for one task at a time; sending for any number. Any thread may call it.
public final class AsyncConnection: StreamHandler, @unchecked Sendable {
    /// Where its tasks are to run.
    public let executor: PortExecutor
    /// Called when it stands; and for one that never does, when that is known.
    private let onOpen: @Sendable (AsyncConnection) -> Void
    /// Set once, in `opened`, and before any task has this object.
    private var standing: StreamConnection?
    let lock = Lock()

    // MARK: What the lock guards

    /// Chunks that nobody has asked for yet: never more than the connection has pending reads. (I13.6)
    private var inbox: CircularQueue<Chunk>
    /// The chunk that the reading task has.
    private var lent: Chunk?
    private var reader = Waiting()
    /// One iterator at a time.
    private var isClaimed = false
    private var hasEnded = false
    private var reason: CloseReason?
    /// Nobody will ask for anything any more.
    private var isDiscarding = false
    /// The task that `use` was called by, and whether it has been cancelled.
    var scope: (task: UInt, isCancelled: Bool) = (0, false)
    var sends: [PendingSend] = []
    var lastToken = 0
    let over = Latch()

    /// A task's wait for the next chunk.
    private struct Waiting {
        var continuation: UnsafeContinuation<Void, Never>?
        var isOn = false
        var isCancelled = false
    }

    init(on executor: PortExecutor, opened: @escaping @Sendable (AsyncConnection) -> Void) {
        self.executor = executor
        onOpen = opened
        inbox = CircularQueue(capacity: 4)
    }

    /// The connection beneath: its name, addresses, counters, tickets and files to transmit.
    public var stream: StreamConnection { standing! }

    deinit {
        // Of a connection that no task has taken.
        while let chunk = inbox.popFirst() { chunk.giveBack() }
    }

    // MARK: Reading

    /// The next bytes, as they have come. The chunk is the caller's until it asks again; then it is read into anew. To have it
    /// longer, `keep` it; to send it back without a copy, `send` it. Nil at the end of the stream.
    ///
    /// What has come is given out first, also to a task that is cancelled: no byte is lost, and a later call goes on behind
    /// it. (I13.5)
    ///
    /// - Throws: ECANCELED when the task is cancelled and nothing is there; ECONNRESET and the like; EBADF behind `close`;
    ///   EALREADY when another task waits here.
    public func next(isolation: isolated (any Actor)? = #isolation) async throws(SystemError) -> Chunk? {
        let start = try begin(AsyncConnection.currentTask)
        start.former?.giveBack()
        if let ready = try start.ready.get() { return ready.chunk }
        if start.isWatched {
            // Its cancellation is this connection's business already: no handler is needed for each wait.
            await suspend(isolation)
        } else {
            await withTaskCancellationHandler(
                operation: { await suspend(isolation) }, onCancel: { cancelReader() }, isolation: isolation)
        }
        return try finish()
    }

    private struct Start {
        /// What the task had before.
        let former: Chunk?
        let ready: Result<Ready?, SystemError>
        /// The task is the one that `use` watches. A child of it is not: it may be cancelled alone.
        let isWatched: Bool
    }

    private struct Ready {
        var chunk: Chunk?
    }

    /// Under the lock: what can be given out without waiting; nil when there is nothing yet.
    private func look() -> Result<Ready?, SystemError> {
        lent = inbox.popFirst()
        if lent != nil { return .success(Ready(chunk: lent)) }
        if hasEnded { return .success(Ready(chunk: nil)) }
        if let endCode { return .failure(SystemError(endCode, attempted: "receive")) }
        if scope.isCancelled { return .failure(SystemError(SystemError.cancelled, attempted: "receive")) }
        return .success(nil)
    }

    private func begin(_ task: UInt) throws(SystemError) -> Start {
        try lock.locked { () throws(SystemError) in
            if reader.isOn {
                throw SystemError(EALREADY, attempted: "receive while another task waits for it")
            }
            let start = Start(former: lent, ready: look(), isWatched: scope.task == task)
            if case .success(nil) = start.ready {
                reader.isOn = true
                reader.isCancelled = false
            }
            return start
        }
    }

    private func suspend(_ isolation: isolated (any Actor)?) async {
        await withUnsafeContinuation(isolation: isolation) { continuation in
            let isNow = lock.locked {
                let isNow =
                    !inbox.isEmpty || hasEnded || reason != nil || reader.isCancelled || scope.isCancelled
                if !isNow { reader.continuation = continuation }
                return isNow
            }
            if isNow { continuation.resume() }
        }
    }

    private func finish() throws(SystemError) -> Chunk? {
        try lock.locked { () throws(SystemError) in
            reader.isOn = false
            if let ready = try look().get() { return ready.chunk }
            throw SystemError(SystemError.cancelled, attempted: "receive")
        }
    }

    private func cancelReader() {
        let waiter = lock.locked {
            reader.isCancelled = true
            return reader.continuation.take()
        }
        waiter?.resume()
    }

    /// Whether a task waits for the next chunk. For tests.
    package var isAwaited: Bool { lock.locked { reader.isOn } }

    /// For an iterator: whether it is the only one.
    func claim() -> Bool {
        lock.locked {
            if isClaimed { return false }
            isClaimed = true
            return true
        }
    }

    func disclaim() { lock.locked { isClaimed = false } }

    // MARK: The scope

    /// The calling task, for comparing with one that has not ended; 0 outside of tasks.
    private static var currentTask: UInt {
        withUnsafeCurrentTask { $0.map { unsafeBitCast($0, to: UInt.self) } ?? 0 }
    }

    /// Uses the connection, and ends it: in order when `body` returns or has been cancelled, at once when it throws for another
    /// reason. Once for each connection.
    ///
    /// When the calling task is cancelled, what it and its children wait for on this connection ends; what has come is still
    /// given out, and what it has sent still leaves.
    ///
    /// - Parameter lingering: How long the other side may take to end, too, behind the last byte of `body`.
    public func use<Value, Failure: Error>(
        lingering: Duration = .seconds(2), isolation: isolated (any Actor)? = #isolation,
        _ body: (AsyncConnection) async throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        lock.locked { scope.task = AsyncConnection.currentTask }
        let result = await withTaskCancellationHandler(
            operation: {
                await Result(isolation: isolation) { () async throws(Failure) in try await body(self) }
            }, onCancel: { cancelScope() }, isolation: isolation)
        switch result {
        case .failure where !lock.locked({ scope.isCancelled }): stream.close()
        default: part(lingering)
        }
        discard()
        await over.wait(isolation: isolation)
        return try result.get()
    }

    private func cancelScope() {
        let waiters = lock.locked {
            scope.isCancelled = true
            return [reader.continuation.take()] + takeSenders()
        }
        for waiter in waiters { waiter?.resume() }
    }

    private func part(_ lingering: Duration) {
        if lock.locked({ hasEnded }) {
            stream.finish()
        } else {
            stream.disconnect(.graceful(within: lingering))
        }
    }

    /// What has come and what still comes is for nobody.
    private func discard() {
        var chunks: [Chunk] = []
        lock.locked {
            isDiscarding = true
            scope.task = 0
            if let lent = lent.take() { chunks.append(lent) }
            while let chunk = inbox.popFirst() { chunks.append(chunk) }
        }
        for chunk in chunks { chunk.giveBack() }
    }

    /// Ends the connection at once. From any thread.
    public func close(_ reason: CloseReason = .cancelled) { stream.close(reason) }

    /// Under the lock: why nothing more can be received or sent; nil while the connection stands.
    var endCode: Int32? { reason.map(AsyncConnection.code) }

    /// The system's number that says best what has become of a connection.
    static func code(of reason: CloseReason) -> Int32 {
        switch reason {
        case .ended: ESHUTDOWN
        case .reset: ECONNRESET
        case .cancelled: EBADF
        case .refused: ECONNREFUSED
        case .outOfResources: ENOBUFS
        case .bug(let code): code
        }
    }

    // MARK: What the stream calls

    /// The connection stands.
    public func opened(_ connection: StreamConnection) {
        lock.locked { standing = connection }
        onOpen(self)
    }

    /// The next chunk: for the task that waits, which goes on right here, or for one that will ask.
    public func received(_ chunk: Chunk, on connection: StreamConnection) {
        lock.lock()
        if isDiscarding { return lock.unlock() }
        // Until it is given back it counts as one of the pending reads: so the inbox has a bound.
        chunk.keep()
        inbox.append(chunk)
        let waiter = reader.continuation.take()
        lock.unlock()
        if let waiter { executor.resume(waiter) }
    }

    /// The other side sends no more. What this side still says is up to the task.
    public func ended(_ connection: StreamConnection) {
        let waiter = lock.locked {
            hasEnded = true
            return reader.continuation.take()
        }
        if let waiter { executor.resume(waiter) }
    }

    /// An awaited send has left.
    public func sent(_ token: Int, on connection: StreamConnection) {
        let waiter = lock.locked { takeSender(token) }
        if let waiter { executor.resume(waiter) }
    }

    /// The connection is over: whoever waits for anything hears of it.
    public func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        let waiters = lock.locked {
            self.reason = reason
            if reason == .ended { hasEnded = true }
            return [reader.continuation.take()] + takeSenders()
        }
        for waiter in waiters { waiter?.resume() }
        over.open()
        if standing == nil { onOpen(self) }
    }
}
