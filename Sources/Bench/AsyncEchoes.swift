import AsyncAwait
import CKernel
import Kernel
import Reordering
import Stage

/// What a task costs: the same echo as chapter 05's handler and as chapter 13's task, on one worker.
enum AsyncEchoes {
    static let connections = [64, 1_000]

    private static func options() -> StreamHub.Options {
        var options = StreamHub.Options()
        (options.workers, options.concurrency) = (1, 1)
        options.pendingReads = 1
        options.chunkCapacity = 1024
        options.port.driver = .epoll
        return options
    }

    private static var contenders: [Echo.Contender] {
        [
            .init(name: "a handler") {
                let hub = try StreamHub(options())
                return (try hub.listen { _ in Reordering.Echo() }, { hub.stop() })
            },
            .init(name: "a task") { try task(hops: false) },
            .init(name: "a task elsewhere") { try task(hops: true) },
        ]
    }

    /// The server of tasks; with `hops` each client's task runs on Swift's own threads.
    private static func task(hops: Bool) throws -> (Address, () -> Void) {
        var choices = AsyncServer.Options()
        choices.hub = options()
        let server = try AsyncServer(options: choices) { connection in
            guard hops else { return try await AsyncEcho.service(connection) }
            try await withTaskExecutorPreference(globalConcurrentExecutor) {
                try await AsyncEcho.service(connection)
            }
        }
        let main = try PortExecutor()
        let running = Task(executorPreference: main) { try? await server.run() }
        return (
            server.address,
            {
                running.cancel()
                main.run { await running.value }
                main.stop()
            }
        )
    }

    static func measure(seconds: Double, into figures: inout Figures) throws {
        for count in connections {
            for contender in contenders {
                ck_pin_thread(0, 0)
                let (address, stop) = try contender.start()
                ck_pin_thread(0, 1)
                let before = Resources.processTime
                let report = try ClientLoad(
                    to: address, connections: count, messageSize: 64, duration: .seconds(seconds),
                    connectLimit: .seconds(60)
                ).runInChild()
                let used = Resources.processTime - before
                stop()
                let name = "\(contender.name), \(count)"
                figures.add(name, "round trips/s", report.perSecond)
                let trips = Double(max(1, report.roundTrips))
                figures.add("\(name): processor", "µs/round trip", used / .microseconds(1) / trips)
            }
        }
    }

    static func compare(_ figures: inout Figures) {
        for count in connections {
            figures.compare("a task, \(count)", to: "a handler, \(count)", .atLeast(0.85))
            figures.compare("a task, \(count): processor", to: "a handler, \(count): processor")
            figures.compare("a task elsewhere, \(count)", to: "a handler, \(count)")
        }
    }
}
