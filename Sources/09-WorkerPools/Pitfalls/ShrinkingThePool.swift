import Contexts
import Kernel
import Stage
import WorkerPools

/// ⚠︎ Broken on purpose: changes the number of its workers in the article's way. Adding is switched off, the workers are told
/// to end, new ones are started, and adding is switched on again.
final class BrokenPool: @unchecked Sendable {
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var jobs: [@Sendable () -> Void] = []
    private var accepts = true
    private var generation = 0
    private var threads: [Kernel.Thread] = []

    func start(_ count: Int) {
        monitor.locked {
            let own = generation
            for number in 0..<count {
                threads.append(startThread("broken \(number)") { [self] in work(own) })
            }
        }
    }

    func add(_ job: @escaping @Sendable () -> Void) {
        monitor.locked {
            // The caller is not told, or does not look.
            if accepts { jobs.append(job) }
            monitor.signal()
        }
    }

    func setWorkers(_ count: Int, _ meanwhile: () -> Void) {
        let old = monitor.locked {
            accepts = false
            generation += 1
            monitor.broadcast()
            defer { threads = [] }
            return threads
        }
        meanwhile()
        for thread in old { thread.join() }
        monitor.locked { accepts = true }
        start(count)
    }

    private func work(_ own: Int) {
        while true {
            let job = monitor.locked { () -> (@Sendable () -> Void)? in
                while jobs.isEmpty, generation == own { monitor.wait() }
                return jobs.isEmpty ? nil : jobs.removeFirst()
            }
            guard let job else { return }
            // Told to end, with a job in its hand.
            if monitor.locked({ generation != own }) { return }
            job()
        }
    }

    func stop() { setWorkers(0) {} }
}

/// The number of workers is changed while they work.
public enum ShrinkingThePool {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "shrinking-the-pool",
        title: "the number of workers is changed while they work, and jobs are lost",
        broken: { _ in
            let done = Counter()
            let (begun, end) = (Gate(count: 2), Gate())
            let pool = BrokenPool()
            pool.start(2)
            for _ in 1...2 {
                pool.add {
                    begun.open()
                    end.pass()
                    done.add()
                }
            }
            begun.pass()
            for _ in 1...3 { pool.add { done.add() } }
            pool.setWorkers(1) {
                pool.add { done.add() }
                end.open()
            }
            pool.stop()
            return Observation(
                happened: done.value < 6,
                lines: ["6 jobs were added, some of them while 2 workers became 1: \(done.value) were done"])
        },
        fixed: { _ in
            let done = Counter()
            let (begun, end) = (Gate(count: 4), Gate())
            let pool = try WorkerPool(workers: 4)
            defer { end.open() }
            for _ in 1...4 {
                try pool.add {
                    begun.open()
                    end.pass()
                    done.add()
                }
            }
            let isBusy = begun.pass()
            for _ in 1...3 { try pool.add { done.add() } }
            // All four have a job: nothing ends, and the call returns.
            try pool.setWorkers(1)
            let before = pool.counters
            try pool.add { done.add() }
            end.open()
            try pool.setWorkers(1, waits: true)
            let workers = pool.counters.workers
            let left = try pool.stop()
            let counters = pool.counters
            return Observation(
                happened: !isBusy || before.workers != 4 || before.running != 4 || workers != 1
                    || !left.isEmpty
                    || done.value != 8 || counters.done != 8 || counters.added != 8 || counters.workers != 0,
                lines: [
                    "8 jobs were added, some of them while 4 workers became 1: \(done.value) were done",
                    "right after the call \(before.workers) workers, each with its job; then \(workers)",
                ])
        })
}
