import Glibc
import Kernel
import ThreadPoolIO

/// Opens once, for good; tasks wait for it without a thread. It may be opened by anybody: a task, a callback, a thread.
package final class Latch: @unchecked Sendable {
    private let lock = Lock()
    // Guarded by the lock.
    private var isOpenNow = false
    private var waiters: [UnsafeContinuation<Void, Never>] = []

    package init() {}

    package var isOpen: Bool { lock.locked { isOpenNow } }

    package func open() {
        let waiters = lock.locked {
            isOpenNow = true
            defer { self.waiters = [] }
            return self.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Waits, also in a task that is cancelled.
    package func wait(isolation: isolated (any Actor)? = #isolation) async {
        await withUnsafeContinuation(isolation: isolation) { continuation in
            let isNow = lock.locked {
                if !isOpenNow { waiters.append(continuation) }
                return isOpenNow
            }
            if isNow { continuation.resume() }
        }
    }
}

/// Waits for a moment on chapter 10's clock: no thread sleeps for it, and Swift's own threads are not asked, as they would be
/// by `Task.sleep`.
///
/// - Returns: Whether the moment has come. False when the task was cancelled before.
/// - Throws: EAGAIN when the system allows no thread for the pool, EBADF when the pool is closed.
public func pause(
    for time: Duration, on pool: ThreadPool = .shared, isolation: isolated (any Actor)? = #isolation
) async throws(SystemError) -> Bool {
    let (due, over) = (Latch(), Latch())
    let timer = PoolTimer(pool) { _ in
        due.open()
        over.open()
    }
    try timer.set(after: time)
    await withTaskCancellationHandler(
        operation: { await over.wait(isolation: isolation) }, onCancel: { over.open() }, isolation: isolation)
    timer.close()
    return due.isOpen
}

/// Gives `body` so much time; then its task is cancelled, and waited for. What it has come to all the same is its result:
/// bytes that were quicker than the deadline are the caller's. (I13.5)
///
/// `body` is a child task: it runs where the caller's tasks prefer to, and is cancelled with the caller.
///
/// - Throws: ETIMEDOUT when the time was over and `body` has thrown ECANCELED; otherwise what it throws.
public func withDeadline<Value: Sendable>(
    after time: Duration, on pool: ThreadPool = .shared, isolation: isolated (any Actor)? = #isolation,
    _ body: @escaping @Sendable () async throws(SystemError) -> Value
) async throws(SystemError) -> Value {
    let (result, isLate, fault) = await withTaskGroup(of: News<Value>.self, isolation: isolation) { group in
        group.addTask { .result(await Result { () async throws(SystemError) in try await body() }) }
        group.addTask {
            .clock(await Result { () async throws(SystemError) in try await pause(for: time, on: pool) })
        }
        var (result, isLate, fault): (Result<Value, SystemError>?, Bool, SystemError?) = (nil, false, nil)
        for await news in group {
            switch news {
            case .result(let value): result = value
            case .clock(.success(let hasPassed)): isLate = hasPassed && result == nil
            case .clock(.failure(let error)): fault = error
            }
            // Whichever was first, the other one is asked to end, and waited for.
            group.cancelAll()
        }
        return (result!, isLate, fault)
    }
    switch result {
    case .success(let value): return value
    case .failure(let error):
        if let fault { throw fault }
        guard isLate, error.code == SystemError.cancelled else { throw error }
        throw SystemError(ETIMEDOUT, attempted: "\(error.attempted) within \(time)")
    }
}

/// Which of the two children of `withDeadline` has ended.
private enum News<Value: Sendable>: Sendable {
    case result(Result<Value, SystemError>)
    case clock(Result<Bool, SystemError>)
}

extension Result {
    /// What an asynchronous call came to.
    package init(
        isolation: isolated (any Actor)? = #isolation, catching body: () async throws(Failure) -> Success
    ) async {
        do throws(Failure) { self = .success(try await body()) } catch { self = .failure(error) }
    }
}
