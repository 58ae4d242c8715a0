import Contexts
import Glibc
import Kernel
import Stage
import Testing
import WorkerPools

@Suite("Chapter 09: the pool of workers", .serialized)
struct Chapter09WorkerPoolsPool {
    struct Wrong: Error {}

    // I9.6
    @Test("10,000 jobs under random numbers of workers, 0 to 8, from two threads: each done once")
    func random() async throws {
        try await onAThread {
            let count = 10_000
            let pool = try WorkerPool(workers: 2, queue: JobQueue(capacity: count))
            let done = Guarded([Int](repeating: 0, count: count))
            let isOver = Gate()
            let changers = (0..<2).map { seed in
                startThread("changer \(seed)") {
                    var number = UInt32(seed + 1)
                    while !isOver.isOpen {
                        number = number &* 1_664_525 &+ 1_013_904_223
                        _ = try? pool.setWorkers(Int(number >> 24) % 9, waits: number >> 20 & 7 == 0)
                    }
                }
            }
            for job in 0..<count { try pool.add { done.locked { $0[job] += 1 } } }
            #expect(eventually(within: .seconds(40)) { pool.counters.done == count })
            isOver.open()
            for changer in changers { changer.join() }
            try pool.setWorkers(3)
            #expect(pool.workers == 3)
            #expect(try pool.stop().isEmpty)
            #expect(done.locked { $0.allSatisfy { $0 == 1 } })
            let counters = pool.counters
            #expect(
                (counters.added, counters.done, counters.failed, counters.workers) == (count, count, 0, 0))
        }
    }

    // I9.6
    @Test(
        "Without workers jobs wait; one comes, and does them; 0 again is legal, and impossible numbers are said"
    )
    func none() async throws {
        try await onAThread {
            let pool = try WorkerPool(workers: 0)
            let done = Counter()
            for _ in 1...5 { try pool.add { done.add() } }
            #expect(pool.counters.waiting == 5)
            try pool.setWorkers(1)
            #expect(eventually { done.value == 5 })
            try pool.setWorkers(0, waits: true)
            #expect(pool.counters.workers == 0)
            for number in [-1, WorkerPool.maximumWorkers + 1, .min, .max] {
                #expect(throws: SystemError.invalid("")) { try pool.setWorkers(number) }
            }
            #expect(throws: SystemError.invalid("")) { _ = try WorkerPool(workers: 257) }
            try pool.add { done.add() }
            // Nobody is there to do it: it is handed back.
            #expect(try pool.stop().count == 1)
            #expect(done.value == 5)
            #expect(throws: SystemError.closed("")) { try pool.setWorkers(1) }
        }
    }

    // I9.6
    @Test("stop does what waits, or hands it back, as it is told")
    func stop() async throws {
        try await onAThread {
            for isDraining in [true, false] {
                let done = Counter()
                let (begun, end) = (Gate(count: 2), Gate())
                let pool = try WorkerPool(workers: 2)
                for _ in 1...2 {
                    try pool.add {
                        begun.open()
                        end.pass()
                        done.add()
                    }
                }
                begun.pass()
                for _ in 1...10 { try pool.add { done.add() } }
                let stopper = startThread("stopper") {
                    let left = (try? pool.stop(draining: isDraining).count) ?? -1
                    #expect(left == (isDraining ? 0 : 10))
                }
                #expect(eventually { !pool.queue.accepts })
                end.open()
                stopper.join()
                #expect(done.value == (isDraining ? 12 : 2))
                #expect(try pool.stop().isEmpty)
            }
        }
    }

    // I9.2
    @Test("A job that throws is counted and reported, and its worker goes on; numbers are not given again")
    func failures() async throws {
        try await onAThread {
            let (failed, started, ended) = (Guarded<[String]>([]), Guarded<[Int]>([]), Guarded<[Int]>([]))
            var events = WorkerPool.Events()
            events.jobFailed = { job, error in failed.locked { $0.append("\(job.command): \(error)") } }
            events.workerStarted = { number in started.locked { $0.append(number) } }
            events.workerEnded = { number in ended.locked { $0.append(number) } }
            let pool = try WorkerPool(workers: 1, events: events) { job, _ in
                if job.command == "bad" { throw Wrong() }
                return nil
            }
            for command in ["good", "bad", "bad", "good"] { try pool.add(Job(command)) }
            #expect(eventually { pool.counters.done == 4 })
            try pool.setWorkers(0, waits: true)
            try pool.setWorkers(2)
            try pool.stop()
            #expect(pool.counters.failed == 2)
            #expect(failed.locked { $0 } == ["bad: Wrong()", "bad: Wrong()"])
            #expect(started.locked { $0.sorted() } == [1, 2, 3])
            #expect(ended.locked { $0.sorted() } == [1, 2, 3])
        }
    }

    // I9.2
    @Test(
        "A job may add jobs and change the number of workers, with the pool's own lock free; it may not wait for itself"
    )
    func inside() async throws {
        try await onAThread {
            let codes = Guarded<[Int32]>([])
            let second = Gate()
            let pool = try WorkerPool(workers: 1) { job, pool in
                guard job.command == "first" else {
                    second.open()
                    return nil
                }
                for attempt in [{ try pool.setWorkers(2, waits: true) }, { _ = try pool.stop() }] {
                    do { try attempt() } catch {
                        codes.locked { $0.append((error as? SystemError)?.code ?? 0) }
                    }
                }
                try pool.setWorkers(2)
                try pool.add(Job("second"))
                // Another worker does it, while this one is here.
                #expect(second.pass())
                try pool.setWorkers(1)
                return nil
            }
            try pool.add(Job("first"))
            #expect(eventually { pool.counters.done == 2 })
            #expect(codes.locked { $0 } == [EDEADLK, EDEADLK])
            #expect(eventually { pool.counters.workers == 1 })
            try pool.stop()
            #expect(pool.counters.failed == 0)
        }
    }

    // I9.2
    @Test("process is called without a lock, and by as many workers at once as there are")
    func together() async throws {
        try await onAThread {
            let all = Barrier(4)
            let met = Counter()
            let pool = try WorkerPool(workers: 4) { _, pool in
                // With a lock held, the others would never come; and the counters can be read.
                if all.arrive(), pool.counters.running == 4 { met.add() }
                all.arrive()
                return nil
            }
            for _ in 1...4 { try pool.add(Job("meet")) }
            #expect(eventually { pool.counters.done == 4 })
            #expect(met.value == 4)
            try pool.stop()
        }
    }

    // I9.6
    @Test("Who waits for fewer workers does not wait any more when another thread wants more again")
    func wantedAgain() async throws {
        try await onAThread {
            let (begun, end) = (Gate(count: 2), Gate())
            let pool = try WorkerPool(workers: 2)
            defer { end.open() }
            for _ in 1...2 {
                try pool.add {
                    begun.open()
                    end.pass(within: .seconds(30))
                }
            }
            begun.pass()
            let hasReturned = Gate()
            let waiter = startThread("waiter") {
                _ = try? pool.setWorkers(1, waits: true)
                hasReturned.open()
            }
            #expect(eventually { pool.workers == 1 })
            // It is in its wait, or about to be: either way it is to come back.
            #expect(!hasReturned.pass(within: .milliseconds(50)))
            try pool.setWorkers(2)
            #expect(hasReturned.pass())
            end.open()
            waiter.join()
            try pool.stop()
        }
    }

    // I9.6
    @Test("A worker that is told to go after it has been woken for a job leaves the job to another one")
    func wokenAndGoing() async throws {
        try await onAThread {
            for _ in 1...200 {
                let pool = try WorkerPool(workers: 2)
                let done = Counter()
                inThreads(2) { thread in
                    if thread == 0 { _ = try? pool.setWorkers(1) } else { try? pool.add { done.add() } }
                }
                #expect(eventually { done.value == 1 })
                try pool.stop()
            }
        }
    }
}
