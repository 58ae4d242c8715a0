import Contexts
import Glibc
import Kernel
import Reordering
import Synchronization
import ThreadPoolIO

/// A server of which each client is a child task.
///
/// `run` lasts as long as the server does. Cancelling its task is how the server is stopped: no client is let in any more,
/// every child is cancelled, what they await ends, and after a grace their connections are closed. When `run` has returned
/// nothing is left: no task, no connection, no chunk, no worker. (I13.9)
public final class AsyncServer: Sendable {
    /// Where it listens.
    public let address: Address
    /// Where its tasks run.
    public let executor: PortExecutor
    private let listener: AsyncListener
    private let options: Options
    private let serve: Service
    private let hasRun = Atomic<Bool>(false)
    private let running = Atomic<Int>(0)
    private let served = Atomic<Int>(0)
    private let failed = Atomic<Int>(0)

    /// What is done for a client: until it returns, or throws, the client's connection stands.
    public typealias Service = @Sendable (AsyncConnection) async throws -> Void

    /// The server's limits and choices.
    public struct Options: Sendable {
        /// Workers, connections, reads and sends: chapter 05's.
        public var hub = StreamHub.Options()
        /// Clients that are connected and have no task yet.
        public var maximumWaiting = 1024
        /// How long the other side may take to end, too, behind the last byte of its task.
        public var lingering = Duration.seconds(2)
        /// How long tasks may take to end after they have been cancelled. Then their connections are closed.
        public var grace = Duration.seconds(2)
        /// How long they may take after that. Then `run` gives up waiting for them, and says so.
        public var patience = Duration.seconds(10)

        /// The defaults.
        public init() {}
    }

    /// Listens. Clients are served from `run` on.
    ///
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible options, EMFILE, EAGAIN.
    public init(
        on address: Address = .loopback(), options: Options = Options(), _ serve: @escaping Service
    ) throws(SystemError) {
        self.options = options
        self.serve = serve
        executor = try PortExecutor(options.hub)
        do throws(SystemError) {
            listener = try AsyncListener(
                on: address, executor: executor, maximumWaiting: options.maximumWaiting)
        } catch {
            executor.stop()
            throw error
        }
        self.address = listener.address
    }

    /// Serves clients until the calling task is cancelled, and returns when nothing is left. Once only.
    ///
    /// - Throws: ETIMEDOUT when tasks are still running at the end of all patience: they do not look at their cancellation, and
    ///   they do not await anything that ends. Nobody can end them; the workers stay with them. EALREADY when it has run.
    public func run() async throws(SystemError) {
        guard !hasRun.exchange(true, ordering: .relaxed) else {
            throw SystemError(EALREADY, attempted: "run a server a second time")
        }
        let over = Latch()
        let timers = Guarded<[PoolTimer]>([])
        let tasks = Task(executorPreference: executor) {
            await self.serveAll()
            over.open()
        }
        await withTaskCancellationHandler {
            await over.wait()
        } onCancel: {
            tasks.cancel()
            timers.locked { $0 = closeLater(over) }
        }
        for timer in timers.locked({ $0 }) { timer.close() }
        guard running.load(ordering: .acquiring) == 0 else {
            throw SystemError(
                ETIMEDOUT,
                attempted: "end the server: \(counters.tasks) of its tasks ignore their cancellation")
        }
        // Workers are joined by a thread that may block.
        let isClean = await onItsOwnThread { self.executor.stop() }
        guard isClean else { throw SystemError(ETIMEDOUT, attempted: "end the server: a chunk is kept") }
    }

    /// The tree of tasks: one child for each client.
    private func serveAll() async {
        await withDiscardingTaskGroup { group in
            for await connection in listener.connections {
                running.add(1, ordering: .relaxed)
                group.addTask { await self.serveOne(connection) }
            }
            group.cancelAll()
        }
    }

    private func serveOne(_ connection: AsyncConnection) async {
        do {
            try await connection.use(lingering: options.lingering) { try await serve($0) }
            served.add(1, ordering: .relaxed)
        } catch {
            failed.add(1, ordering: .relaxed)
        }
        running.subtract(1, ordering: .acquiringAndReleasing)
    }

    /// The end of the grace, and the end of all patience, on chapter 10's clock.
    private func closeLater(_ over: Latch) -> [PoolTimer] {
        let executor = executor
        let grace = PoolTimer { _ in
            executor.endOperations()
            for connection in executor.hub.connections { connection.close() }
        }
        let patience = PoolTimer { _ in over.open() }
        do throws(SystemError) {
            try grace.set(after: options.grace)
            try patience.set(after: options.grace + options.patience)
        } catch {
            // Without a thread for the clock there is no grace.
            executor.endOperations()
            for connection in executor.hub.connections { connection.close() }
        }
        return [grace, patience]
    }

    /// What a server has done so far.
    public struct Counters: Sendable, Equatable {
        /// Clients that have a task now.
        public var tasks = 0
        /// Tasks that have returned.
        public var served = 0
        /// Tasks that have thrown: most of them since their client reset, or since the server ended.
        public var failed = 0
        /// Clients that were reset, since too many waited for a task or the server was ending.
        public var turnedAway = 0
    }

    /// What it has done so far.
    public var counters: Counters {
        Counters(
            tasks: running.load(ordering: .relaxed), served: served.load(ordering: .relaxed),
            failed: failed.load(ordering: .relaxed), turnedAway: listener.turnedAway)
    }
}

/// Runs something that blocks on a thread made for it: a pool of a fixed size is no place to block in.
private func onItsOwnThread<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
    await withUnsafeContinuation { continuation in
        let work: @Sendable () -> Void = { continuation.resume(returning: body()) }
        if (try? Kernel.Thread("server's end", work)) == nil { work() }
    }
}

/// Gives every client its bytes back: the stage's server, as a task.
public enum AsyncEcho {
    /// To be given to an `AsyncServer`.
    public static let service: AsyncServer.Service = { connection in
        for try await chunk in connection.chunks {
            try connection.send(chunk)
        }
    }
}
