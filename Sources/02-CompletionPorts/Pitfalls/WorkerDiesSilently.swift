import CompletionPorts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a worker whose handler fails returns. Its thread ends, and nobody is told.
struct BrokenWorkers {
    let team: [SteppedWorker]

    init(_ count: Int, on port: CompletionPort, handler: @escaping @Sendable (Packet) throws -> Void) {
        team = (1...count).map { SteppedWorker("\($0)") }
        for worker in team {
            worker.begin {
                while case .completed(let packet) = port.dequeue() {
                    do { try handler(packet) } catch { return }
                }
            }
        }
    }

    /// Workers whose loop is still going.
    var alive: Int { team.count { !$0.isDone } }
}

/// Two workers, two packets that their handler cannot make sense of, and then a good one.
enum WorkerDiesSilently {
    private static let workers = 2
    private static let badKey: UInt = 13

    private struct NoSense: Error {}

    private static func handle(_ packet: Packet, _ handled: Gate) throws {
        guard packet.key != badKey else { throw NoSense() }
        handled.open()
    }

    static let pitfall = Pitfall(
        slug: "worker-dies-silently",
        title: "an error that nobody expected ends the worker; when the last one has gone nothing is served",
        broken: { driver in
            let port = try CompletionPort.on(driver)
            let handled = Gate()
            let crew = BrokenWorkers(workers, on: port) { try handle($0, handled) }
            for _ in 0..<workers { try port.post(key: badKey) }
            _ = eventually { crew.alive == 0 }
            try port.post(key: 1)
            let isServed = handled.pass(within: .milliseconds(200))
            let lines = [
                "bad packets: \(workers), workers left: \(crew.alive) of \(workers)",
                "a good packet: \(isServed ? "handled" : "still queued after 200 ms")",
            ]
            let happened = !isServed && crew.alive == 0 && port.queuedPackets == 1
            port.close(draining: false)
            for worker in crew.team { worker.end() }
            return Observation(happened: happened, lines: lines)
        },
        fixed: { driver in
            let port = try CompletionPort.on(driver)
            let (handled, reported) = (Gate(), Counter())
            let crew = try WorkerGroup(workers, on: port) { error in
                if error is NoSense { reported.add() }
            } handler: { packet, _ in
                try handle(packet, handled)
            }
            for _ in 0..<2 * workers { try port.post(key: badKey) }
            try port.post(key: 1)
            let isServed = handled.pass()
            crew.stop()
            return Observation(
                happened: !isServed || crew.failedPackets != 2 * workers || reported.value != 2 * workers,
                lines: [
                    "bad packets: \(2 * workers), counted: \(crew.failedPackets), reported: \(reported.value)",
                    "a good packet: \(isServed ? "handled" : "not handled")",
                ])
        })
}
