import Contexts
import Kernel
import Reordering

/// Clients of chapter 03's accepts, as a sequence.
///
/// Clients that no task has asked for wait here, up to a bound; beyond it they are reset and counted. What such a client says
/// waits in its pending reads, and then in its socket. (I13.6)
public final class AsyncListener: @unchecked Sendable {
    /// Where it listens.
    public let address: Address
    /// Clients that may wait to be asked for.
    public let maximumWaiting: Int
    private let state: State

    /// What the hub's calls and the loop share.
    private final class State: @unchecked Sendable {
        let lock = Lock()
        // Guarded by the lock.
        var waiting = CircularQueue<AsyncConnection>(capacity: 16)
        /// Clients that have been let in, and are not in the queue yet.
        var coming = 0
        var loop: UnsafeContinuation<Void, Never>?
        var isClaimed = false
        var isStopped = false
        var turnedAway = 0
    }

    /// Listens, on an executor's hub, until that is stopped.
    ///
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for no room at all, EBADF when the hub has been stopped.
    public init(
        on address: Address = .loopback(), executor: PortExecutor, maximumWaiting: Int = 1024
    ) throws(SystemError) {
        guard maximumWaiting > 0 else { throw SystemError.invalid("listen without room for a client") }
        let state = State()
        self.state = state
        self.maximumWaiting = maximumWaiting
        self.address = try executor.hub.listen(on: address) { _, _ in
            state.lock.locked {
                guard !state.isStopped, state.waiting.count + state.coming < maximumWaiting else {
                    state.turnedAway += 1
                    return .drop
                }
                state.coming += 1
                return .welcome
            }
        } handler: { _ in
            AsyncConnection(on: executor) { connection in
                let (isLate, loop) = state.lock.locked {
                    state.coming -= 1
                    if !state.isStopped { state.waiting.append(connection) }
                    return (state.isStopped, state.loop.take())
                }
                if isLate { connection.close() }
                if let loop { executor.resume(loop) }
            }
        }
    }

    /// Clients that were reset, since too many waited or the listener had been stopped.
    public var turnedAway: Int { state.lock.locked { state.turnedAway } }

    /// Ends the sequence: clients that wait are closed, those that come are reset. The hub's end closes the listener itself.
    public func stop() {
        var (loop, waiting): (UnsafeContinuation<Void, Never>?, [AsyncConnection]) = (nil, [])
        state.lock.locked {
            state.isStopped = true
            loop = state.loop.take()
            while let connection = state.waiting.popFirst() { waiting.append(connection) }
        }
        for connection in waiting { connection.close() }
        loop?.resume()
    }

    /// The clients, in the order in which they were let in. One loop for each listener. It ends with `stop`, and when its task
    /// is cancelled.
    public var connections: Connections { Connections(listener: self) }

    /// The next client; nil when there will be none.
    private func next(_ isolation: isolated (any Actor)?) async -> AsyncConnection? {
        await withTaskCancellationHandler(
            operation: {
                await withUnsafeContinuation(isolation: isolation) { continuation in
                    let isNow = state.lock.locked {
                        let isNow = !state.waiting.isEmpty || state.isStopped
                        if !isNow { state.loop = continuation }
                        return isNow
                    }
                    if isNow { continuation.resume() }
                }
            }, onCancel: { stop() }, isolation: isolation)
        return state.lock.locked { state.waiting.popFirst() }
    }

    /// A listener's clients.
    public struct Connections: AsyncSequence, Sendable {
        let listener: AsyncListener

        /// Begins to take clients.
        public func makeAsyncIterator() -> Iterator {
            let isOnly = listener.state.lock.locked {
                defer { listener.state.isClaimed = true }
                return !listener.state.isClaimed
            }
            precondition(isOnly, "one loop takes the clients of a listener")
            return Iterator(listener: listener)
        }

        /// Who takes them.
        public struct Iterator: AsyncIteratorProtocol {
            let listener: AsyncListener

            /// The next client; nil behind the last one.
            public mutating func next(isolation: isolated (any Actor)? = #isolation) async -> AsyncConnection?
            {
                await listener.next(isolation)
            }
        }
    }
}

extension PortExecutor {
    /// Takes a connection over that somebody else has made. `use` it.
    ///
    /// - Throws: as `StreamHub.adopt`; then the socket is closed.
    public func adopt(_ socket: Socket) throws(SystemError) -> AsyncConnection {
        let connection = AsyncConnection(on: self) { _ in }
        try hub.adopt(socket, handler: connection)
        return connection
    }

    /// Connects, and gives the connection when it stands. `use` it: until then nothing is read beyond its pending reads.
    ///
    /// - Throws: ECONNREFUSED, ETIMEDOUT and the like; EADDRNOTAVAIL, ENOBUFS, EBADF as `StreamHub.connect`.
    public func connect(
        to address: Address, within time: Duration = .seconds(10),
        isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) -> AsyncConnection {
        let answered = Latch()
        let connection = AsyncConnection(on: self) { _ in answered.open() }
        let stream = try hub.connect(to: address, within: time, handler: connection)
        await withTaskCancellationHandler(
            operation: { await answered.wait(isolation: isolation) }, onCancel: { stream.close() },
            isolation: isolation)
        if let reason = stream.closeReason {
            throw SystemError(AsyncConnection.code(of: reason), attempted: "connect to \(address)")
        }
        return connection
    }
}
