import AsyncAwait
import Glibc
import Kernel
import Reordering
import Stage

/// An executor for a scenario, with workers of its own on one driver.
public func makeExecutor(
    _ driver: DriverKind, workers: Int = 2, concurrency: Int = 2,
    _ configure: (inout StreamHub.Options) -> Void = { _ in }
) throws(SystemError) -> PortExecutor {
    var options = StreamHub.Options()
    options.workers = workers
    options.concurrency = concurrency
    options.port.driver = driver
    configure(&options)
    return try PortExecutor(options)
}

extension PortExecutor {
    /// Starts a task, for a scenario's thread to wait for.
    public func start<Value: Sendable>(_ body: @escaping @Sendable () async -> Value) -> Started<Value> {
        let over = Gate()
        let task = Task(executorPreference: self) {
            let value = await body()
            over.open()
            return value
        }
        return Started(task: task, over: over)
    }
}

/// A task that has been started.
public struct Started<Value: Sendable>: Sendable {
    /// The task, to be cancelled.
    public let task: Task<Value, Never>
    /// Opens when it has ended.
    public let over: Gate

    /// What it came to; nil when it has not ended in time.
    public func value(on executor: PortExecutor, within patience: Duration = Gate.patience) -> Value? {
        guard over.pass(within: patience) else { return nil }
        return executor.run { await task.value }
    }
}

/// What an awaited call came to, as a word.
func word(_ result: Result<Int, SystemError>?) -> String {
    switch result {
    case .success(let count): counted(count, "byte")
    case .failure(let error): SystemError.text(error.code)
    case nil: "nothing: it does not return"
    }
}

/// ⚠︎ Broken on purpose, as the base of what is: an operation whose packet resumes a continuation, and nothing else is
/// thought of. To be posted on handles that are associated under the key 0.
class BrokenOperation: HubTask, @unchecked Sendable {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 16)
    // Written before the post.
    var waiter: UnsafeContinuation<Void, Never>?
    /// Opens when the post has been tried.
    let hasTried = Gate()
    /// Opens when the packet has come.
    let done = Gate()

    deinit { memory.deallocate() }

    override func completed(_ bytes: Int, _ error: SystemError?) {
        waiter?.resume()
        done.open()
    }

    var outcome: Result<Int, SystemError> { error.map { .failure($0) } ?? .success(bytes) }
}

/// Scenarios that end in a trap, or use up Swift's own threads.
public let ownProcess = OwnProcess(
    "13-async-await",
    [
        ContinuationResumedTwice.slug: { try ContinuationResumedTwice.crash($0) },
        BlockingInATask.slug: { _ in BlockingInATask.blockAll() },
    ])
