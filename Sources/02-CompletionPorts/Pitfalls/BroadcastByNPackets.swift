import CompletionPorts
import Kernel
import Stage

/// A packet for each worker: as a broadcast it is wrong, since the worker that handles its packet quickly is the one
/// that gets the next one, too. As an end it is right: who has taken its packet never asks again.
enum BroadcastByNPackets {
    static let pitfall = Pitfall(
        slug: "broadcast-by-n-packets",
        title: "N packets are posted to reach N workers: one worker takes two, another none",
        broken: { try run(on: $0, leaves: false) },
        fixed: { try run(on: $0, leaves: true) })

    private static func run(on driver: DriverKind, leaves: Bool) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let team = [SteppedWorker("A"), SteppedWorker("B")]
        let counts = team.map { _ in Counter() }
        for (worker, count) in zip(team, counts) {
            worker.begin {
                while case .completed = port.dequeue() {
                    count.add()
                    if leaves { break }
                }
            }
            _ = eventually { worker.isAsleep }
        }
        _ = eventually { port.workers.waiting == 2 }
        for _ in team { try port.post() }
        // Everybody who will take a packet has taken it.
        _ = eventually { counts.reduce(0) { $0 + $1.value } == 2 }
        let lines = zip(team, counts).map { "worker \($0.name) got packets: \($1.value)" }
        let isUneven = counts.contains { $0.value == 0 }
        port.close()
        for worker in team { worker.end() }
        return Observation(happened: isUneven, lines: lines)
    }
}
