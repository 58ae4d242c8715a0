import Contexts
import Framing
@preconcurrency import Glibc
import Kernel
import Reordering
import Stage
import WorkerPools
import WorkerPoolsPitfalls

/// Chapter 09's pool: whom a computation holds up, what a second worker brings, and what a job costs.
enum WorkerPoolFigures {
    private static let small = 200_000

    static func measure(seconds: Double, into figures: inout Figures) throws {
        try measureWaits(seconds: max(seconds, 0.6), into: &figures)
        for workers in [1, 2] {
            figures.add("1 ms jobs, \(workers) logical", "jobs/s", try rateOfLongJobs(workers))
        }
        figures.add("empty jobs, mutex pool", "jobs/s", try rateOfMutexPool())
        figures.add("empty jobs, WorkerPool", "jobs/s", try rateOfPool())
        figures.add("empty jobs, a second port", "jobs/s", try rateOfPort())
    }

    static func compare(_ figures: inout Figures) {
        figures.compare("hello p99, job computes", to: "hello p99, process computes", .atMost(1.5))
        figures.compare("hello longest, job computes", to: "longest that is allowed", .atMost(1))
        figures.compare("hello p99, handler computes", to: "hello p99, process computes")
        figures.compare("hello p99, 2 + 2 on 2", to: "hello p99, job computes")
        figures.compare("1 ms jobs, 2 logical", to: "1 ms jobs, 1 logical", .atLeast(1.8))
        figures.compare("empty jobs, WorkerPool", to: "empty jobs, mutex pool", .atLeast(0.8))
        figures.compare("empty jobs, a second port", to: "empty jobs, WorkerPool")
    }

    // MARK: Waits

    private static let work = Duration.milliseconds(200)

    private static func measureWaits(seconds: Double, into figures: inout Figures) throws {
        figures.add("longest that is allowed", "ms", 20)
        for (name, io, logical, asks) in [
            ("process computes", 1, 1, 0), ("job computes", 1, 1, 1), ("2 + 2 on 2", 2, 2, 2),
        ] {
            let server = try makeServer(.standard, ioWorkers: io, logicalWorkers: logical) {
                $0.probe = { _ in compute(for: work) }
            }
            let child = asks == 0 ? try spawnComputing() : nil
            let report = try waits(try server.listen(), seconds, askers: asks)
            if let child {
                kill(child, SIGKILL)
                waitpid(child, nil, 0)
            }
            server.stop()
            add(report, name, into: &figures)
        }
        var options = StreamHub.Options()
        options.workers = 1
        let hub = try StreamHub(options)
        let address = try hub.listen { _ in
            FramedConnection(
                Lines(),
                handler: BrokenLines { line in
                    if line != "hello" { compute(for: work) }
                    return line
                })
        }
        add(try waits(address, seconds, askers: 1), "handler computes", into: &figures)
        hub.stop()
    }

    private static func add(_ report: HelloLoad.Report, _ name: String, into figures: inout Figures) {
        figures.add("hello p99, \(name)", "ms", report.waits.percentile(99) / .milliseconds(1))
        figures.add("hello longest, \(name)", "ms", Double(report.waits.longest) / 1e6)
    }

    /// 32 clients say hello every 10 ms; some others ask for a computation, and when they have the answer for the next one.
    private static func waits(_ address: Address, _ seconds: Double, askers: Int) throws -> HelloLoad.Report {
        let load = try HelloLoad(to: address, clients: 32, every: .milliseconds(10))
        let end = Deadline.after(.seconds(seconds - 0.2))
        let threads = try (0..<askers).map { index in
            let client = try LineClient(to: address)
            return startThread("asker \(index)") {
                while !end.hasPassed, (try? client.ask("primes 30")) != nil {}
            }
        }
        let report = try load.run(for: .seconds(seconds))
        for thread in threads { thread.join() }
        return report
    }

    /// Another process that computes, until it is killed.
    private static func spawnComputing() throws(SystemError) -> pid_t {
        var child: pid_t = 0
        let words: [UnsafeMutablePointer<CChar>?] =
            ["/bin/sh", "-c", "while :; do :; done"].map { (word: String) in strdup(word) } + [nil]
        defer { for word in words { free(word) } }
        let code = posix_spawn(&child, "/bin/sh", nil, nil, words, environ)
        if code != 0 { throw SystemError(code, attempted: "start a process that computes") }
        return child
    }

    // MARK: Rates

    private static func rate(_ count: Int, _ body: () throws -> Void) rethrows -> Double {
        let start = monotonicNanoseconds()
        try body()
        return Double(count) * 1e9 / Double(monotonicNanoseconds() - start)
    }

    /// The jobs are there before the workers come.
    private static func rateOfLongJobs(_ workers: Int) throws -> Double {
        let count = 300
        let pool = try WorkerPool(workers: 0)
        for _ in 0..<count { try pool.add { compute(for: .milliseconds(1)) } }
        let result = try rate(count) {
            try pool.setWorkers(workers)
            try pool.stop()
        }
        return result
    }

    private static func rateOfPool() throws -> Double {
        let pool = try WorkerPool(workers: 1, queue: JobQueue(capacity: small))
        let done = Counter()
        return try rate(small) {
            for _ in 0..<small { try pool.add { done.add() } }
            try pool.stop()
        }
    }

    private static func rateOfPort() throws -> Double {
        let queue = try JobPort(workers: 1)
        let done = Counter()
        return try rate(small) {
            for _ in 0..<small { try queue.add { done.add() } }
            queue.stop()
        }
    }

    private static func rateOfMutexPool() throws -> Double {
        let pool = MutexPool()
        let done = Counter()
        return rate(small) {
            for _ in 0..<small { pool.add { done.add() } }
            pool.stop()
        }
    }
}

/// What one would write first: a mutex, a condition, a queue, a thread.
private final class MutexPool: @unchecked Sendable {
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var jobs = CircularQueue<@Sendable () -> Void>()
    private var isOver = false
    private var thread: Kernel.Thread?

    init() { thread = startThread("plain") { [self] in run() } }

    func add(_ job: @escaping @Sendable () -> Void) {
        monitor.locked {
            jobs.append(job)
            monitor.signal()
        }
    }

    private func run() {
        while true {
            let job = monitor.locked { () -> (@Sendable () -> Void)? in
                while jobs.isEmpty, !isOver { monitor.wait() }
                return jobs.popFirst()
            }
            guard let job else { return }
            job()
        }
    }

    func stop() {
        monitor.locked {
            isOver = true
            monitor.signal()
        }
        thread?.join()
    }
}
