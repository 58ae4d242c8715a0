import CompletionPorts
import Glibc
import Kernel
import Stage
import ThreadPoolIO
import ThreadPoolIOPitfalls

/// Sixteen callbacks, of which fourteen block: fixed workers, and a pool that grows.
func playBlockedCallbacks(_ options: Stage.Options, on terminal: Terminal) throws {
    let (all, blocking) = (16, 14)
    let workers = 2 * Kernel.Thread.processors
    terminal.heading("\(all) callbacks, of which \(blocking) block for 200 ms")
    terminal.say("They are queued at once, the blocking ones first. When are the other two called?")
    terminal.say()
    let fixed = try onFixedWorkers(workers, options)
    let pooled = try onThePool(options)
    terminal.table(
        ["", "threads at most", "last two called, ms", "all over, ms"],
        [
            [
                "2 × processors workers", "\(fixed.threads)", milliseconds(fixed.short),
                milliseconds(fixed.all),
            ],
            [
                "a pool of up to 16 threads", "\(pooled.threads)", milliseconds(pooled.short),
                milliseconds(pooled.all),
            ],
        ])
    terminal.say()
    terminal.say("The pool's threads, and how many of them run a callback, over time:")
    terminal.say()
    curve(pooled.samples, on: terminal)
    terminal.say()
    terminal.claim(
        "the fixed workers took 200 ms for every \(workers) that block",
        holds: fixed.threads == workers && fixed.all >= .milliseconds(200 * (blocking / workers)))
    terminal.claim(
        "the pool made threads for those that blocked, and not more than it may",
        holds: pooled.threads > workers && pooled.threads <= 16)
    terminal.claim("all were called by both, and the pool has shrunk to 1 thread", holds: pooled.hasShrunk)
}

private struct Outcome {
    var threads = 0
    var short = Duration.zero
    var all = Duration.zero
    var samples: [(threads: Int, running: Int)] = []
    var hasShrunk = false
}

private func milliseconds(_ time: Duration) -> String { "\(Int(time / .milliseconds(1)))" }

private func passed(since start: UInt64) -> Duration { .nanoseconds(Int64(monotonicNanoseconds() - start)) }

private func onFixedWorkers(_ workers: Int, _ options: Stage.Options) throws -> Outcome {
    var choices = CompletionPort.Options()
    choices.driver = options.driver
    let port = try CompletionPort(options: choices)
    let (short, all) = (Gate(count: 2), Gate(count: 16))
    let group = try WorkerGroup(workers, on: port) { packet, _ in
        if packet.key == 0 { usleep(200_000) } else { short.open() }
        all.open()
    }
    let start = monotonicNanoseconds()
    for number in 0..<16 { try port.post(key: number < 14 ? 0 : 1) }
    var outcome = Outcome(threads: workers)
    short.pass()
    outcome.short = passed(since: start)
    all.pass()
    outcome.all = passed(since: start)
    port.close()
    group.stop()
    return outcome
}

private func onThePool(_ options: Stage.Options) throws -> Outcome {
    var choices = poolOptions(options)
    choices.idleTime = .milliseconds(30)
    let pool = try ThreadPool(choices)
    let (short, all) = (Gate(count: 2), Gate(count: 16))
    let start = monotonicNanoseconds()
    for number in 0..<16 {
        try pool.submit { _ in
            if number < 14 { usleep(200_000) } else { short.open() }
            all.open()
        }
    }
    var outcome = Outcome()
    // One look each 4 ms, until the pool has been small again for a while.
    while outcome.samples.count < 400 {
        let now = pool.counters
        outcome.samples.append((now.threads, now.running))
        if outcome.short == .zero, short.isOpen { outcome.short = passed(since: start) }
        if outcome.all == .zero, all.isOpen { outcome.all = passed(since: start) }
        if all.isOpen, now.threads == 1 { break }
        usleep(4_000)
    }
    outcome.hasShrunk = all.pass() && eventually { pool.counters.threads == 1 }
    if outcome.short == .zero { outcome.short = passed(since: start) }
    if outcome.all == .zero { outcome.all = passed(since: start) }
    outcome.threads = pool.counters.peak
    try pool.closeAndWait()
    return outcome
}

/// A row for each number of threads, the highest on top.
private func curve(_ samples: [(threads: Int, running: Int)], on terminal: Terminal) {
    let width = min(60, samples.count)
    let columns = (0..<width).map { samples[$0 * samples.count / width] }
    for level in stride(from: 16, through: 2, by: -2) {
        let line = columns.map { $0.running >= level ? "█" : $0.threads >= level ? "░" : " " }.joined()
        terminal.say("  \(level < 10 ? " " : "")\(level) │\(line)")
    }
    terminal.say("     └" + String(repeating: "─", count: width))
    terminal.say("      time: \(samples.count * 4) ms   █ runs a callback   ░ waits for one")
}
