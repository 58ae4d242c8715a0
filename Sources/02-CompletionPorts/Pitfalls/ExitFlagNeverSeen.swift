import CompletionPorts
import Kernel
import Stage

/// A worker is asked to stop by a flag that it reads between two packets. It is suspended in the dequeue call, there
/// is no next packet, and it reads nothing.
enum ExitFlagNeverSeen {
    static let pitfall = Pitfall(
        slug: "exit-flag-never-seen",
        title: "a worker that waits for a packet does not see that it is asked to stop",
        broken: { try run(on: $0, wakes: false) },
        fixed: { try run(on: $0, wakes: true) })

    private static func run(on driver: DriverKind, wakes: Bool) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let worker = SteppedWorker("A")
        let shallStop = Gate()
        worker.begin {
            while !shallStop.isOpen { _ = port.dequeue() }
        }
        _ = eventually { port.workers.waiting == 1 && worker.isAsleep }
        shallStop.open()
        if wakes { try port.post() }
        let hasStopped = worker.finish(within: wakes ? Gate.patience : .milliseconds(200))
        let lines = [
            wakes ? "the flag is set, and a packet is posted" : "the flag is set",
            hasStopped
                ? "the worker has ended"
                : "200 ms later the worker sleeps in the dequeue call: \(worker.isAsleep)",
        ]
        port.close()
        worker.end()
        return Observation(happened: !hasStopped, lines: lines)
    }
}
