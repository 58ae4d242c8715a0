import Kernel
import Stage

/// What is too heavy for the tests. Each has a verdict of its own.
enum Stress {
    static let all: [(name: String, run: @Sendable (Terminal) throws -> Bool)] = []

    /// Runs one, or all, and returns the exit status.
    static func run(_ name: String?, _ terminal: Terminal) -> Int32 {
        let chosen = all.filter { name == nil || $0.name == name }
        guard !chosen.isEmpty else {
            refuse(
                "bench: there is no stress called \(name ?? ""); there are \(all.map(\.name).joined(separator: ", "))"
            )
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
