import CompletionPorts
import Kernel
import Stage
import Timeline

/// One worker of a port blocks in its handler, and packets come.
func playBlockedWorker(driver: DriverKind, on terminal: Terminal) throws {
    terminal.heading("A worker blocks, and packets come")
    terminal.say("A limit of 1. The first packet's handler waits for something; five more packets follow it.")
    terminal.say()
    let alone = try BlockedWorker(workers: 1, saysSo: false, driver: driver).run()
    let noticed = try BlockedWorker(workers: 2, saysSo: false, driver: driver).run()
    let said = try BlockedWorker(workers: 2, saysSo: true, driver: driver).run()

    func row(_ name: String, _ outcome: BlockedWorker.Outcome) -> [String] {
        let first = outcome.first.map { "\(Int($0 / .microseconds(1)))" } ?? "never"
        let most = outcome.mostAfterwards.map { "\($0)" } ?? ""
        return [name, "\(outcome.handled)", "\(outcome.left)", first, most]
    }
    terminal.table(
        ["", "handled meanwhile", "left waiting", "the first after µs", "at once, afterwards"],
        [
            row("as many workers as the limit", alone),
            row("one more, noticed by the port", noticed),
            row("one more, said with port.blocking", said),
        ])
    terminal.say()
    terminal.say("The second of these, over time:")
    terminal.draw(noticed.recording)
    terminal.say()
    terminal.claim(
        "with no worker to spare, all five packets wait for the one that blocks",
        holds: alone.handled == 0 && alone.left == 5)
    terminal.claim(
        "with one more worker than the limit, the port releases it",
        holds: noticed.handled == 5 && said.handled == 5)
    terminal.claim(
        "when the blocked one has resumed, the limit of 1 holds again",
        holds: noticed.mostAfterwards == 1 && said.mostAfterwards == 1)
}

private struct BlockedWorker {
    struct Outcome {
        /// Packets handled, and left in the queue, while the first worker was blocked.
        var handled = 0
        var left = 0
        /// How long the first of them waited.
        var first: Duration?
        /// Handlers that ran at once when all were free again: at most.
        var mostAfterwards: Int?
        /// Until all were free again.
        var recording = Recording(records: [], lanes: [])
    }

    private enum Key {
        static let blocks: UInt = 1
        static let quick: UInt = 2
        static let computes: UInt = 3
    }

    let workers: Int
    let saysSo: Bool
    let driver: DriverKind
    static let packets = 5
    /// How long the first handler stays blocked. Where another worker can do the rest, until it has: so however busy the
    /// machine is, what is counted is what the port does.
    private var patience: Duration { workers == 1 ? .milliseconds(50) : Gate.patience }

    func run() throws -> Outcome {
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        let (isBlocked, resume, firstHandled) = (Gate(), Gate(), Gate())
        let (quick, computed, computing) = (Counter(), Counter(), Counter())
        let group = try WorkerGroup(workers, on: port) { [saysSo] packet, _ in
            switch packet.key {
            case Key.blocks:
                let wait = {
                    isBlocked.open()
                    resume.pass()
                }
                if saysSo { port.blocking(wait) } else { wait() }
            case Key.quick:
                firstHandled.open()
                spin(for: .microseconds(300))
                quick.add()
            default:
                computing.add()
                spin(for: .microseconds(200))
                computing.add(-1)
                computed.add()
            }
        }
        var outcome = Outcome()
        Recorder.start()
        _ = eventually { port.workers.waiting == workers }
        try port.post(key: Key.blocks)
        isBlocked.pass()
        let start = monotonicNanoseconds()
        for _ in 0..<BlockedWorker.packets { try port.post(key: Key.quick) }
        if firstHandled.pass(within: patience) {
            outcome.first = .nanoseconds(monotonicNanoseconds() - start)
        }
        _ = eventually(within: patience) { quick.value == BlockedWorker.packets }
        outcome.handled = quick.value
        outcome.left = port.queuedPackets
        resume.open()
        _ = eventually { port.workers.waiting == workers }
        outcome.recording = Recorder.stop()
        if workers > 1 {
            // Everybody is back; from here on nobody blocks.
            for _ in 0..<20 { try port.post(key: Key.computes) }
            _ = eventually { computed.value == 20 }
            outcome.mostAfterwards = computing.peak
        }
        group.stop()
        return outcome
    }
}

/// Computes for a while: a thread that is busy, not blocked.
private func spin(for duration: Duration) {
    let end = Deadline.after(duration)
    while !end.hasPassed {}
}
