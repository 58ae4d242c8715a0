import AsyncAwait
import Contexts
import Glibc
import Kernel
import Reordering
import Stage

/// Each completion is handed to another executor.
public enum HopPerCompletion {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "hop-per-completion",
        title: "the task runs on another executor than the completion that it waits for: a wake-up for each",
        broken: { driver in
            // ⚠︎ Broken on purpose: the task runs on another executor's threads than its connection. So it does on Swift's
            // own, when nobody says where it is to run.
            let other = try makeExecutor(driver, workers: 1, concurrency: 1)
            defer { other.stop() }
            return try play(driver) { _, body in other.start(body).over.pass() }
        },
        fixed: { driver in
            try play(driver) { executor, body in executor.start(body).over.pass() }
        })

    private static let rounds = 100

    private static func play(
        _ driver: DriverKind,
        _ run: (PortExecutor, @escaping @Sendable () async -> Void) -> Bool
    ) throws -> Observation {
        let executor = try makeExecutor(driver, workers: 1, concurrency: 1)
        let pair = try Pair()
        let worker = executor.run { Kernel.Thread.currentID }
        let connection = try executor.adopt(pair.server)
        let before = executor.counters.postedJobs
        let elsewhere = Counter()
        let client = startThread("client") {
            for _ in 0..<rounds { _ = pair.client.isAnswered("ping") }
            try? pair.client.shutDownSending()
        }
        let isOver = run(executor) {
            try? await connection.use { (connection) async throws(SystemError) in
                while let chunk = try await connection.next() {
                    if Kernel.Thread.currentID != worker { elsewhere.add() }
                    try connection.send(chunk)
                }
            }
        }
        client.join()
        let posted = executor.counters.postedJobs - before
        executor.stop()
        guard isOver else { throw SystemError(ETIMEDOUT, attempted: "echo \(rounds) messages") }
        return Observation(
            // On one worker a job that is posted has its thread, too, but later, and costs a packet.
            happened: elsewhere.value > rounds / 2 || posted > rounds / 2,
            lines: [
                "\(rounds) messages, one worker",
                "messages that the task had on another thread than the worker: \(elsewhere.value)",
                "jobs that went through the port as packets: \(posted)",
            ])
    }
}
