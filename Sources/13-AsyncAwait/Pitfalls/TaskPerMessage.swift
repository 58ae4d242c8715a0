import AsyncAwait
import Framing
import Glibc
import Kernel
import Stage

/// A child task for each message.
public enum TaskPerMessage {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "task-per-message",
        title: "a child task for each message: as many tasks as the client likes, and answers in any order",
        broken: { driver in
            // ⚠︎ Broken on purpose: reads on, whatever is under way.
            try play(driver) { connection, answer in
                try? await withThrowingDiscardingTaskGroup { group in
                    for try await line in connection.frames(Lines()) {
                        group.addTask { await answer(line) }
                    }
                }
            }
        },
        fixed: { driver in
            try play(driver) { connection, answer in
                do {
                    for try await line in connection.frames(Lines()) { await answer(line) }
                } catch {}
            }
        })

    private static let count = 50

    private typealias Answer = @Sendable ([UInt8]) async -> Void

    /// The first message takes its time. How many are under way meanwhile, and what is answered first?
    private static func play(
        _ driver: DriverKind, _ serve: @escaping @Sendable (AsyncConnection, @escaping Answer) async -> Void
    ) throws -> Observation {
        let executor = try makeExecutor(driver)
        let pair = try Pair()
        let connection = try executor.adopt(pair.server)
        let (isWorking, mayEnd, underWay) = (Gate(), Latch(), Counter())
        let serving = executor.start {
            await connection.use { connection in
                await serve(connection) { line in
                    underWay.add()
                    if line == Array("0".utf8) {
                        isWorking.open()
                        await mayEnd.wait()
                    }
                    try? await connection.send(line, as: Lines())
                    underWay.add(-1)
                }
            }
        }
        let lines = (0..<count).map { "\($0)\n" }
        try pair.client.say(lines.joined())
        isWorking.pass()
        // Whatever is to be answered before the first one has time to be.
        let rest = lines.dropFirst().joined()
        let early = try pair.client.hear(rest.utf8.count, within: .milliseconds(200))
        mayEnd.open()
        let late = try pair.client.hear(lines.joined().utf8.count - early.utf8.count)
        try pair.client.shutDownSending()
        guard serving.over.pass() else { throw SystemError(ETIMEDOUT, attempted: "answer \(count) messages") }
        executor.stop()
        let isInOrder = early + late == lines.joined()
        return Observation(
            happened: !isInOrder,
            lines: [
                "\(count) messages; answers before the first one: \(early.split(separator: "\n").count)",
                "tasks under way at the most: \(underWay.peak); answers \(isInOrder ? "in order" : "out of order")",
            ])
    }
}
