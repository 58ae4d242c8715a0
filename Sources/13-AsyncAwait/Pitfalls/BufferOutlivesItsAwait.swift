import AsyncAwait
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a cancelled task goes on at once, and its receive stays pending.
private final class BrokenLeaver: BrokenOperation, @unchecked Sendable {
    private let lock = Lock()

    func receive(from socket: Socket) async -> Result<Int, SystemError> {
        await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                lock.locked { waiter = continuation }
                try? socket.receive(self, into: memory)
            }
        } onCancel: {
            resumeOnce()
        }
        return .failure(SystemError(ECANCELED, attempted: "receive"))
    }

    private func resumeOnce() {
        let waiter = lock.locked {
            defer { self.waiter = nil }
            return self.waiter
        }
        waiter?.resume()
    }

    override func completed(_ bytes: Int, _ error: SystemError?) {
        resumeOnce()
        done.open()
    }
}

/// A task returns while the system may still write into its buffer.
public enum BufferOutlivesItsAwait {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "buffer-outlives-its-await",
        title: "a cancelled task returns, uses its buffer again, and the system writes into it",
        broken: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            try executor.hub.port.associate(pair.server, key: 0)
            let operation = BrokenLeaver()
            let result = cancelled(executor, { operation.isPending }) {
                await operation.receive(from: pair.server)
            }
            // The task has its result, and so takes the buffer for its own.
            operation.memory.copyBytes(from: Array("mine".utf8))
            try pair.client.say("late")
            operation.done.pass()
            let found = String(decoding: operation.memory[..<4], as: UTF8.self)
            executor.stop()
            return observe(found, result)
        },
        fixed: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            let operation = AwaitedOperation(on: executor)
            let waiting = executor.start {
                await Result { () async throws(SystemError) in try await pair.server.receive(into: operation)
                }
            }
            _ = eventually { operation.isPending }
            // Whoever tries to use the memory before is refused.
            var refused = false
            do throws(SystemError) { try operation.fill([1]) } catch { refused = error.code == EALREADY }
            waiting.task.cancel()
            let result = waiting.value(on: executor)
            let isOver = !operation.isPending
            try operation.fill(Array("mine".utf8))
            try pair.client.say("late")
            _ = eventually { pair.server.unread == 4 }
            let found = String(decoding: try operation.copy(4), as: UTF8.self)
            executor.stop()
            var observation = observe(found, result)
            observation.happened = observation.happened || !refused || !isOver
            return observation
        })

    private static func cancelled(
        _ executor: PortExecutor, _ isPending: () -> Bool,
        _ receive: @escaping @Sendable () async -> Result<Int, SystemError>
    ) -> Result<Int, SystemError>? {
        let waiting = executor.start(receive)
        _ = eventually { isPending() }
        waiting.task.cancel()
        return waiting.value(on: executor)
    }

    private static func observe(_ found: String, _ result: Result<Int, SystemError>?) -> Observation {
        Observation(
            happened: found != "mine",
            lines: [
                "a receive is cancelled, and returns: \(word(result))",
                "its task writes \"mine\" into the buffer; the client sends \"late\"",
                "the buffer holds \"\(found)\"",
            ])
    }
}
