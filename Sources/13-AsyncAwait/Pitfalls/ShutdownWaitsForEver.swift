import AsyncAwait
import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Stage

/// A child ignores its cancellation, or awaits what nobody ends.
public enum ShutdownWaitsForEver {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "shutdown-waits-for-ever",
        title: "a child awaits an operation that nobody ends: its group waits for ever",
        broken: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            try executor.hub.port.associate(pair.server, key: 0)
            let operation = BrokenOperation()
            let serving = executor.start {
                // ⚠︎ Broken on purpose: cancelling sets a mark that nobody looks at.
                await withDiscardingTaskGroup { group in
                    group.addTask { _ = await operation.receiveOrHang(from: pair.server) }
                }
            }
            _ = eventually { operation.isPending }
            serving.task.cancel()
            let hasEnded = serving.over.pass(within: .milliseconds(200))
            // So that this program can go on.
            pair.server.close()
            serving.over.pass()
            executor.stop()
            return Observation(
                happened: !hasEnded,
                lines: [
                    "the server's task is cancelled; its group \(hasEnded ? "has ended" : "still waits after 200 ms")"
                ])
        },
        fixed: { driver in
            var options = AsyncServer.Options()
            options.hub.port.driver = driver
            (options.grace, options.lingering) = (.milliseconds(100), .milliseconds(100))
            let states = Guarded<Set<String>>([])
            let server = try AsyncServer(options: options) { connection in
                try await serve(connection, states)
            }
            let main = try makeExecutor(driver)
            let running = main.start {
                await Result { () async throws(SystemError) in try await server.run() }
            }
            let clients = try kinds.map { kind in
                let client = try Socket.connected(to: server.address)
                try client.say(kind + "\n")
                return client
            }
            let areThere = eventually { states.locked { $0.count } == kinds.count }
            let start = monotonicNanoseconds()
            running.task.cancel()
            let result = running.value(on: main)
            let time = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
            for client in clients { client.close() }
            main.stop()
            let counters = server.executor.hub.counters
            let left = [
                server.counters.tasks, counters.connections, counters.alive, counters.chunks.inUse,
                server.executor.counters.awaited,
            ]
            guard areThere, case .success? = result else {
                return Observation(happened: true, lines: ["the server has not ended: \(left)"])
            }
            return Observation(
                happened: left != [0, 0, 0, 0, 0],
                lines: [
                    "cancelled with a child in each of \(kinds.count) states: ended after \(readable(time))",
                    "tasks, connections, their memory, chunks, operations left: \(left)",
                ])
        })

    /// What a child is in the middle of when the server is cancelled.
    private static let kinds = ["receives", "frames", "sends", "ignores", "deadline", "elsewhere"]

    /// What it is, its client says in its first line.
    private static func serve(_ connection: AsyncConnection, _ states: Guarded<Set<String>>) async throws {
        var kind = ""
        while let chunk = try await connection.next() {
            kind += String(decoding: chunk.contents, as: UTF8.self)
            if kind.hasSuffix("\n") { break }
        }
        kind = String(kind.dropLast())
        _ = states.locked { $0.insert(kind) }
        switch kind {
        case "frames": for try await _ in connection.frames(LengthPrefixed(.four)) {}
        case "sends":
            // The client does not read.
            while true { try await connection.send([UInt8](repeating: 1, count: 100_000)) }
        case "ignores":
            // Until its connection is closed: then there is nothing left to ignore.
            var isOpen = true
            while isOpen {
                do throws(SystemError) {
                    isOpen = try await connection.next() != nil
                } catch {
                    isOpen = error.code != EBADF
                    await Task.yield()
                }
            }
        case "deadline":
            _ = try await withDeadline(after: .seconds(60)) { () async throws(SystemError) in
                try await connection.next()
            }
        case "elsewhere":
            // Something else than its connection.
            let listener = try Socket.listener(on: .loopback())
            let operation = AwaitedOperation(on: connection.executor)
            _ = try await listener.accept(with: operation)
        default: while try await connection.next() != nil {}
        }
    }
}
