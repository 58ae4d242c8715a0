import AsyncAwait
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: the packet resumes the task, and so does the cancel.
private final class BrokenTwice: BrokenOperation, @unchecked Sendable {
    private var checked: CheckedContinuation<Void, Never>?

    func receive(from socket: Socket) async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                checked = continuation
                try? socket.receive(self, into: memory)
            }
        } onCancel: {
            socket.cancel(self)
            checked?.resume()
        }
    }

    override func completed(_ bytes: Int, _ error: SystemError?) {
        checked?.resume()
        done.open()
    }
}

/// Completion and cancel both resume the task.
public enum ContinuationResumedTwice {
    static let slug = "continuation-resumed-twice"

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: slug,
        title: "completion and cancel both resume the task",
        broken: { driver in
            let (status, lines) = try ownProcess.run(slug, driver)
            return Observation(
                happened: status != 0 && lines.last == lastWords,
                lines: lines + ["the process ended with status \(status): Swift has noticed the second time"])
        },
        fixed: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            let operation = AwaitedOperation(on: executor, capacity: 16)
            var (received, cancelled) = (0, 0)
            for _ in 0..<rounds {
                let waiting = executor.start {
                    await Result { () async throws(SystemError) in
                        try await pair.server.receive(into: operation)
                    }
                }
                // The byte and the cancel are under way at the same time.
                let barrier = Barrier(2)
                let canceller = startThread("canceller") {
                    barrier.arrive()
                    waiting.task.cancel()
                }
                barrier.arrive()
                try pair.client.say("x")
                canceller.join()
                switch waiting.value(on: executor) {
                case .success(let count): received += count
                case .failure(let error) where error.code == SystemError.cancelled: cancelled += 1
                case .failure(let error): throw error
                case nil: throw SystemError(ETIMEDOUT, attempted: "end a wait")
                }
            }
            executor.stop()
            return Observation(
                happened: received > rounds || cancelled > rounds,
                lines: [
                    "\(rounds) waits, each with a byte and a cancel at the same time: each returned once",
                    "\(received) bytes, \(counted(cancelled, "wait")) cancelled",
                ])
        })

    private static let rounds = 200
    private static let lastWords = "a task waits for bytes, and is cancelled"

    /// To be run in a process of its own, which it ends.
    package static func crash(_ driver: DriverKind) throws {
        let executor = try makeExecutor(driver)
        let pair = try Pair()
        try executor.hub.port.associate(pair.server, key: 0)
        let operation = BrokenTwice()
        let waiting = executor.start { await operation.receive(from: pair.server) }
        guard eventually({ operation.isPending }) else { return OwnProcess.say("nothing is pending") }
        OwnProcess.say(lastWords)
        waiting.task.cancel()
        operation.done.pass()
        usleep(100_000)
    }
}
