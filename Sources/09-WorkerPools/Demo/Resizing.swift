import Contexts
import Glibc
import Kernel
import Stage
import WorkerPools

/// 2,000 jobs, and a number of workers that changes meanwhile.
func showResizing(on terminal: Terminal) throws {
    let count = 2_000
    terminal.heading("2,000 jobs of half a millisecond; 1 worker, then 4, then 1 again")
    let done = Guarded([Int](repeating: 0, count: count))
    let pool = try WorkerPool(workers: 1, queue: JobQueue(capacity: count))
    for job in 0..<count {
        try pool.add {
            usleep(500)
            done.locked { $0[job] += 1 }
        }
    }
    let begin = monotonicNanoseconds()
    var strip: [Int] = []
    var progress: [Int] = []
    let deadline = Deadline.after(.seconds(20))
    while pool.counters.done < count, !deadline.hasPassed {
        let now = pool.counters
        // From any thread, at any time.
        if now.done > count / 10, pool.workers == 1, now.done < count * 9 / 10 { try pool.setWorkers(4) }
        if now.done > count * 9 / 10, pool.workers == 4 { try pool.setWorkers(1) }
        strip.append(now.workers)
        progress.append(now.done)
        usleep(8_000)
    }
    let elapsed = Double(monotonicNanoseconds() - begin) / 1e9
    try pool.setWorkers(1, waits: true)
    strip.append(pool.counters.workers)
    progress.append(pool.counters.done)
    // As many columns as there is room for.
    let step = max(1, (strip.count + 64) / 65)
    let columns = stride(from: 0, to: strip.count, by: step).map { $0 }
    terminal.say("workers    " + columns.map { String(strip[$0]) }.joined())
    let levels = Array("▁▂▃▄▅▆▇█")
    terminal.say(
        "jobs done  " + columns.map { String(levels[min(7, progress[$0] * 8 / count)]) }.joined())
    let left = try pool.stop()
    let isOnce = done.locked { $0.allSatisfy { $0 == 1 } }
    terminal.say("\(readable(count)) jobs in \(readable(elapsed)) s")
    terminal.claim(
        "each job was done once, and none is left",
        holds: isOnce && left.isEmpty && pool.counters.done == count)
    terminal.claim(
        "there were 4 workers, and in the end 1",
        holds: strip.max() == 4 && strip.first == 1 && strip.last == 1)
}
