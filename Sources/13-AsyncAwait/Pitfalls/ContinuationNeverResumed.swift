import AsyncAwait
import Glibc
import Kernel
import Stage

extension BrokenOperation {
    /// ⚠︎ Broken on purpose: a packet resumes the task, and a post that fails brings none.
    func receiveOrHang(from socket: Socket) async -> Result<Int, SystemError> {
        await withUnsafeContinuation { continuation in
            waiter = continuation
            try? socket.receive(self, into: memory)
            hasTried.open()
        }
        return outcome
    }
}

/// A post fails, and nobody resumes the task.
public enum ContinuationNeverResumed {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "continuation-never-resumed",
        title: "the post fails, no packet comes, and the task hangs for ever",
        broken: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            try executor.hub.port.associate(pair.server, key: 0)
            pair.server.close()
            let operation = BrokenOperation()
            let waiting = executor.start { await operation.receiveOrHang(from: pair.server) }
            let hasReturned = waiting.over.pass(within: .milliseconds(100))
            // So that this program can go on.
            operation.hasTried.pass()
            operation.waiter?.resume()
            waiting.over.pass()
            executor.stop()
            return Observation(
                happened: !hasReturned,
                lines: [
                    "a receive on a closed socket, awaited: \(hasReturned ? "returned" : "given up after 100 ms")"
                ])
        },
        fixed: { driver in
            let executor = try makeExecutor(driver)
            let (pair, busy) = (try Pair(), try Pair())
            pair.server.close()
            let operation = AwaitedOperation(on: executor)
            let receive: @Sendable (Socket) async -> Result<Int, SystemError> = { socket in
                await Result { () async throws(SystemError) in try await socket.receive(into: operation) }
            }
            let first = executor.start { await receive(pair.server) }.value(on: executor)
            // The operation is free for another post; and while that is pending, a second await is refused.
            let second = executor.start { await receive(busy.server) }
            _ = eventually { operation.isPending }
            let third = executor.start { await receive(busy.server) }.value(on: executor)
            try busy.client.say("x")
            let bytes = second.value(on: executor)
            let isClean = executor.stop()
            return Observation(
                happened: first != .failure(SystemError(EBADF, attempted: "")) || bytes != .success(1)
                    || third != .failure(SystemError(EALREADY, attempted: "")) || !isClean,
                lines: [
                    "a receive on a closed socket, awaited: \(word(first))",
                    "the same operation on another socket: \(word(bytes)); a second await meanwhile: \(word(third))",
                ])
        })
}
