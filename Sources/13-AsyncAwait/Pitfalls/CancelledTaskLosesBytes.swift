import AsyncAwait
import Glibc
import Kernel
import Stage

extension BrokenOperation {
    /// ⚠︎ Broken on purpose: what has been cancelled is taken for what has brought nothing.
    func receiveUnlessCancelled(from socket: Socket) async -> Result<Int, SystemError> {
        await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                waiter = continuation
                try? socket.receive(self, into: memory)
            }
        } onCancel: {
            socket.cancel(self)
        }
        if Task.isCancelled { return .failure(SystemError(ECANCELED, attempted: "receive")) }
        return outcome
    }
}

/// The bytes of a cancelled receive had come already.
public enum CancelledTaskLosesBytes {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "cancelled-task-loses-bytes",
        title: "a cancelled receive had its byte already, and it is thrown away",
        broken: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            try executor.hub.port.associate(pair.server, key: 0)
            let operation = BrokenOperation()
            let result = try race(executor, pair, isPending: { operation.isPending }) {
                await operation.receiveUnlessCancelled(from: pair.server)
            }
            let next = try pair.server.receiveNow(into: operation.memory)
            executor.stop()
            return Observation(
                happened: result == .failure(SystemError(ECANCELED, attempted: "")) && next == nil,
                lines: [
                    "the client sends a byte, and then the task is cancelled: \(word(result))",
                    "what is left in the socket: \(next.map { counted($0, "byte") } ?? "nothing"); the byte is gone",
                ])
        },
        fixed: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            let operation = AwaitedOperation(on: executor)
            let result = try race(executor, pair, isPending: { operation.isPending }) {
                await Result { () async throws(SystemError) in try await pair.server.receive(into: operation)
                }
            }
            let byte = try operation.copy(1)
            // And without a byte the cancel is what it comes to.
            let waiting = executor.start {
                await Result { () async throws(SystemError) in try await pair.server.receive(into: operation)
                }
            }
            _ = eventually { operation.isPending }
            waiting.task.cancel()
            let empty = waiting.value(on: executor)
            executor.stop()
            return Observation(
                happened: result != .success(1) || byte != [UInt8(ascii: "x")]
                    || empty != .failure(SystemError(ECANCELED, attempted: "")),
                lines: [
                    "the client sends a byte, and then the task is cancelled: \(word(result))",
                    "cancelled without a byte: \(word(empty))",
                ])
        })

    /// All workers are held, so that the cancel comes when the byte is there and nobody has heard of it.
    private static func race(
        _ executor: PortExecutor, _ pair: Pair, isPending: () -> Bool,
        _ receive: @escaping @Sendable () async -> Result<Int, SystemError>
    ) throws -> Result<Int, SystemError>? {
        let waiting = executor.start(receive)
        guard eventually({ isPending() }) else { throw SystemError(ETIMEDOUT, attempted: "post a receive") }
        let (held, mayGoOn) = (Gate(count: 2), Gate())
        let holders = (0..<2).map { _ in
            executor.start {
                held.open()
                mayGoOn.pass()
            }
        }
        held.pass()
        try pair.client.say("x")
        // No worker waits in the driver, so whoever posts looks there: the byte's packet comes into the queue, and stays.
        let isQueued = eventually {
            try? executor.hub.port.post()
            return !isPending()
        }
        waiting.task.cancel()
        mayGoOn.open()
        for holder in holders { holder.over.pass() }
        guard isQueued else { throw SystemError(ETIMEDOUT, attempted: "bring a byte to the port") }
        return waiting.value(on: executor)
    }
}
