import CompletionPorts
import Kernel
import Stage

/// Three workers wait, and one exit packet is posted: a packet satisfies one waiter.
enum OneExitPacket {
    private static let workers = 3

    static let pitfall = Pitfall(
        slug: "one-exit-packet",
        title: "one exit packet ends one worker, and the others wait for ever",
        broken: { driver in
            try run(on: driver, "one exit packet is posted", patience: .milliseconds(200)) { try $0.post() }
        },
        fixed: { driver in
            let posted = try run(on: driver, "an exit packet is posted for each worker") { port in
                for _ in 0..<workers { try port.post() }
            }
            let closed = try run(on: driver, "the port is closed") { $0.close() }
            return Observation(
                happened: posted.happened || closed.happened, lines: posted.lines + closed.lines)
        })

    private static func run(
        on driver: DriverKind, _ words: String, patience: Duration = Gate.patience,
        stop: (CompletionPort) throws -> Void
    ) throws -> Observation {
        let port = try CompletionPort.on(driver, concurrency: 2)
        let team = (1...workers).map { SteppedWorker("\($0)") }
        for worker in team { worker.begin { _ = port.dequeue() } }
        _ = eventually { port.workers.waiting == workers && team.allSatisfy { $0.isAsleep } }
        try stop(port)
        let deadline = Deadline.after(patience)
        for worker in team {
            worker.finish(within: .nanoseconds(Int64(clamping: deadline.remaining)))
        }
        let ended = team.count { $0.isDone }
        let asleep = team.count { $0.isAsleep }
        port.close()
        for worker in team { worker.end() }
        return Observation(
            happened: ended < workers,
            lines: ["\(words): workers that ended: \(ended), that still wait: \(asleep)"])
    }
}
