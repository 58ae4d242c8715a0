import CompletionPorts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: waits for workers, and keeps the state of the last one it looked at only.
struct BrokenWorkerWait {
    let workers: [SteppedWorker]

    func wait() {
        var hasEnded = true
        repeat {
            for worker in workers { hasEnded = worker.isDone }
        } while !hasEnded
    }
}

/// Three workers, two of them in the middle of a packet. The third has nothing to do and ends at once.
enum ShutdownTrustsLastThread {
    static let pitfall = Pitfall(
        slug: "shutdown-trusts-last-thread",
        title: "shutdown looks at every worker, remembers the last one, and leaves while others run",
        broken: { try broken($0) }, fixed: { try fixed($0) })

    private static func broken(_ driver: DriverKind) throws -> Observation {
        let port = try CompletionPort.on(driver, concurrency: 2)
        let (inside, hold) = (Counter(), Gate())
        let team = (1...3).map { SteppedWorker("\($0)") }
        try port.post()
        try port.post()
        for (index, worker) in team.enumerated() {
            worker.begin {
                while case .completed = port.dequeue() { work(inside, hold) }
            }
            if index < 2 { _ = eventually { inside.value == index + 1 } }
        }
        return observe(inside, hold) {
            port.close()
            BrokenWorkerWait(workers: team).wait()
        } cleanUp: {
            for worker in team { worker.end() }
        }
    }

    private static func fixed(_ driver: DriverKind) throws -> Observation {
        let port = try CompletionPort.on(driver, concurrency: 2)
        let (inside, hold) = (Counter(), Gate())
        let team = try WorkerGroup(3, on: port) { _, _ in work(inside, hold) }
        try port.post()
        try port.post()
        _ = eventually { inside.value == 2 }
        return observe(inside, hold) {
            team.stop()
        } cleanUp: {
        }
    }

    private static func work(_ inside: Counter, _ hold: Gate) {
        inside.add()
        hold.pass()
        inside.add(-1)
    }

    private static func observe(
        _ inside: Counter, _ hold: Gate, shutDown: @escaping @Sendable () -> Void, cleanUp: () -> Void
    ) -> Observation {
        let stillRunning = Counter()
        let left = Gate()
        let thread = startThread("shutdown") {
            shutDown()
            stillRunning.add(inside.value)
            left.open()
        }
        // The handlers are held until shutdown has returned, or clearly waits for them.
        let hasLeft = left.pass(within: .milliseconds(200))
        hold.open()
        thread.join()
        cleanUp()
        return Observation(
            happened: stillRunning.value > 0,
            lines: [
                "two workers are in the middle of a packet, one waits; shutdown begins",
                hasLeft ? "shutdown returns" : "shutdown waits, the packets are let go, and it returns",
                "workers in the middle of a packet at that moment: \(stillRunning.value)",
            ])
    }
}
