import Kernel
import Stage
import Synchronization

/// What is too heavy for the tests. Each has a verdict of its own.
enum Stress {
    static let all: [(name: String, run: @Sendable (Terminal) throws -> Bool)] = [
        ("model", model),
        ("waiting", Waiting.run),
        ("teardown", Teardown.run),
        ("idle", IdleConnections.run),
        ("ordered-chunks", OrderedChunks.run),
        ("ordered-stream", OrderedStream.run),
        ("framing", FramingStress.run),
        ("fuzz-framing", FramingStress.fuzz),
        ("adaptive", Tide.run),
        ("file-transfer", FileStress.run),
        ("composed", FileStress.composed),
        ("pool-server", Pools.stressServer),
        ("server", ServerStress.run),
        ("stops", ServerStress.stop),
        ("moves", PortMoves.run),
    ]

    /// Those that run for a time.
    private static let timed = ["fuzz-framing", "adaptive", "composed", "server"]
    private static let nanoseconds = Atomic<Int>(0)

    /// How long a stress runs that runs for a time.
    static func time(unlessTold standard: Duration) -> Duration {
        let told = nanoseconds.load(ordering: .relaxed)
        return told == 0 ? standard : .nanoseconds(told)
    }

    /// Random operations on every driver, compared with the model, ten times with a seed each.
    @Sendable private static func model(_ terminal: Terminal) throws -> Bool {
        for kind in DriverKind.permitted {
            var bytes = 0
            var operations = 0
            for _ in 0..<10 {
                let report = try RandomOperations.run(kind, operations: 100_000)
                operations += report.operations
                bytes += report.bytes
            }
            terminal.say("\(kind): \(operations) operations, \(bytes >> 20) MiB compared, no difference")
        }
        return true
    }

    /// Runs one, or all, and returns the exit status.
    /// - Parameter time: how long those run that end with their time; `nil` for their own.
    static func run(_ name: String?, for time: Duration?, _ terminal: Terminal) -> Int32 {
        do { try IdleConnections.holdIfChild(name) } catch { refuse("bench: \(error)") }
        let chosen = all.filter { name == nil || $0.name == name }
        guard !chosen.isEmpty else {
            refuse(
                "bench: there is no stress called \(name ?? ""); there are \(all.map(\.name).joined(separator: ", "))"
            )
        }
        if let time {
            guard name.map(timed.contains) ?? true else {
                refuse("bench: stress \(name!) ends when its work is done: leave --seconds out")
            }
            Stress.nanoseconds.store(Int(time / .nanoseconds(1)), ordering: .relaxed)
        }
        for stress in chosen {
            do {
                terminal.claim(stress.name, holds: try stress.run(terminal))
            } catch {
                terminal.claim("\(stress.name): \(error)", holds: false)
            }
        }
        return terminal.exitStatus
    }
}
