import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: posts exit packets until the workers have ended. Without workers nothing ever says so.
struct BrokenExitLoop {
    let port: CompletionPort
    let workers: [SteppedWorker]
    /// Where this program stops it, since it would not.
    static let bound = 100_000

    /// Returns the number of rounds.
    func shutDown() throws -> Int {
        var hasEnded = false
        var rounds = 0
        while !hasEnded, rounds < BrokenExitLoop.bound {
            try port.post()
            for worker in workers { hasEnded = worker.isDone }
            rounds += 1
        }
        return rounds
    }
}

/// A server was started with 0 workers, and is shut down.
enum ShutdownSpinsWithoutWorkers {
    static let pitfall = Pitfall(
        slug: "shutdown-spins-without-workers",
        title: "with 0 workers, shutdown posts exit packets for ever",
        broken: { driver in
            let port = try CompletionPort.on(driver)
            let rounds = try BrokenExitLoop(port: port, workers: []).shutDown()
            let queued = port.queuedPackets
            port.close(draining: false)
            return Observation(
                happened: rounds == BrokenExitLoop.bound,
                lines: [
                    "exit packets posted when it was stopped by force: \(rounds), all still queued: \(queued)"
                ])
        },
        fixed: { driver in
            let port = try CompletionPort.on(driver)
            var lines: [String] = []
            var isRefused = false
            do throws(SystemError) {
                _ = try WorkerGroup(0, on: port) { _, _ in }
            } catch {
                isRefused = error.code == EINVAL
                lines.append("\(error)")
            }
            let left = boundedWait(Gate.patience) { port.close() }
            lines.append(left ? "closing the port returns at once" : "closing the port does not return")
            return Observation(happened: !isRefused || !left, lines: lines)
        })
}
