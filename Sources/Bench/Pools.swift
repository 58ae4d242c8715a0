import Glibc
import Kernel
import Stage
import ThreadPoolIO
import ThreadPoolIOPitfalls

/// Chapter 10's pool: jobs beside a plain pool of a mutex and a condition, and how punctual timers are.
enum Pools {
    private static let jobs = 200_000

    static func measure(into figures: inout Figures) throws {
        figures.add("jobs, plain pool", "jobs/s", plain())
        figures.add("jobs, thread pool", "jobs/s", try pooled())
        let late = try timers(count: 10_000, over: .seconds(10))
        figures.add("timers, 99 in 100 late by", "ms", late)
        figures.add("10,000 timers due at once, all called after", "ms", try atOnce(10_000))
    }

    static func compare(_ figures: inout Figures) {
        figures.compare("jobs, thread pool", to: "jobs, plain pool", .atLeast(0.8))
    }

    private static func rate(since start: UInt64) -> Double {
        Double(jobs) * 1e9 / Double(monotonicNanoseconds() - start)
    }

    private static func plain() -> Double {
        let pool = PlainPool(Kernel.Thread.processors)
        let done = Gate(count: jobs)
        let start = monotonicNanoseconds()
        for _ in 0..<jobs { pool.add { done.open() } }
        done.pass(within: .seconds(60))
        let rate = rate(since: start)
        pool.end()
        return rate
    }

    private static func pooled() throws -> Double {
        let pool = try ThreadPool()
        let done = Gate(count: jobs)
        let work = PoolWork(pool) { _ in done.open() }
        let start = monotonicNanoseconds()
        for _ in 0..<jobs { try work.submit() }
        done.pass(within: .seconds(60))
        let rate = rate(since: start)
        try pool.closeAndWait()
        return rate
    }

    /// By how many milliseconds the 99th of 100 timers is late.
    private static func timers(count: Int, over span: Duration) throws -> Double {
        let pool = try ThreadPool()
        let (group, done, times) = (PoolGroup(), Gate(count: count), Times())
        for number in 0..<count {
            let due = Deadline.after(.milliseconds(100) + span * (number * 7_919 % count) / count)
            let timer = PoolTimer(pool, group: group) { _ in
                times.note(monotonicNanoseconds() - due.nanoseconds)
                done.open()
            }
            try timer.set(due: due)
        }
        done.pass(within: span + .seconds(60))
        try group.close()
        try pool.closeAndWait()
        return Double(times.sorted[count * 99 / 100]) / 1e6
    }

    private static func atOnce(_ count: Int) throws -> Double {
        let pool = try ThreadPool()
        let (group, done, due) = (PoolGroup(), Gate(count: count), Deadline.after(.milliseconds(500)))
        for _ in 0..<count { try PoolTimer(pool, group: group) { _ in done.open() }.set(due: due) }
        done.pass(within: .seconds(60))
        let time = monotonicNanoseconds() - due.nanoseconds
        try group.close()
        try pool.closeAndWait()
        return Double(time) / 1e6
    }

    /// The chapter's server, ended a hundred times on each driver with clients in every state.
    @Sendable static func stressServer(_ terminal: Terminal) throws -> Bool {
        for kind in DriverKind.permitted {
            var (accepted, longest) = (0, Duration.zero)
            for seed in 0..<100 {
                let report = try PoolServerEnd.run(kind, seed: seed, clients: 100)
                accepted += report.accepted
                longest = max(longest, report.time)
            }
            terminal.say(
                "\(kind): ended 100 times, \(accepted) clients, the longest end \(readable(longest))")
        }
        return true
    }
}

private final class Times: @unchecked Sendable {
    private let lock = Lock()
    private var times: [UInt64] = []
    var sorted: [UInt64] { lock.locked { times.sorted() } }
    func note(_ time: UInt64) { lock.locked { times.append(time) } }
}

/// What everybody writes first: a queue, a mutex, a condition, and so many threads.
private final class PlainPool: @unchecked Sendable {
    private let monitor = Monitor()
    // Under the monitor.
    private var queue = CircularQueue<@Sendable () -> Void>(capacity: 1_024)
    private var isEnding = false
    private var threads: [Kernel.Thread] = []

    init(_ count: Int) {
        threads = (0..<count).map { number in startThread("plain \(number)") { [self] in run() } }
    }

    func add(_ job: @escaping @Sendable () -> Void) {
        monitor.locked {
            queue.append(job)
            monitor.signal()
        }
    }

    func end() {
        monitor.locked {
            isEnding = true
            monitor.broadcast()
        }
        for thread in threads { thread.join() }
    }

    private func run() {
        while true {
            let job = monitor.locked { () -> (@Sendable () -> Void)? in
                while queue.isEmpty, !isEnding { monitor.wait() }
                return queue.popFirst()
            }
            guard let job else { return }
            job()
        }
    }
}
