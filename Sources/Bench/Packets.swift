import CompletionPorts
import Glibc
import Kernel
import Stage

/// Packets through the port: posted and dequeued on one thread, and handed from one thread to others.
enum Packets {
    static let onOneThread = 1_000_000
    static let betweenThreads = 400_000

    static func measure(into figures: inout Figures) throws {
        // The system's mutex skips its atomic instructions while a process has one thread only; no server has.
        let stop = Gate()
        let other = try Kernel.Thread("bystander") { stop.pass(within: .seconds(120)) }
        defer {
            stop.open()
            other.join()
        }
        figures.add("lock and unlock", "million/s", rate(onOneThread) { lockPairs(onOneThread) })
        try figures.add(
            "packets on one thread", "million/s", rate(onOneThread) { try postAndDequeue(onOneThread) })
        try figures.add(
            "mutex queue to 1 thread", "million/s", handOver(betweenThreads, to: 1, through: MutexQueue()))
        for workers in [1, 2, 4] {
            try figures.add(
                "port to \(workers) worker\(workers == 1 ? "" : "s")", "million/s",
                handOver(betweenThreads, to: workers, through: PortQueue()))
        }
    }

    static func compare(_ figures: inout Figures) {
        figures.compare(
            "lock and unlock", to: "packets on one thread", .atMost(5), as: "packet in lock pairs")
        figures.compare("port to 1 worker", to: "mutex queue to 1 thread", .atLeast(0.6))
    }

    private static func rate(_ count: Int, _ body: () throws -> Void) rethrows -> Double {
        let start = monotonicNanoseconds()
        try body()
        return Double(count) * 1_000 / Double(monotonicNanoseconds() - start)
    }

    private static func lockPairs(_ count: Int) {
        let lock = Lock()
        for _ in 0..<count {
            lock.lock()
            lock.unlock()
        }
    }

    private static func postAndDequeue(_ count: Int) throws {
        let port = try CompletionPort()
        for number in 0..<count {
            try port.post(bytes: number, key: 1)
            guard case .completed = port.dequeue() else { fatalError("a posted packet did not come back") }
        }
    }

    /// One thread posts, others take.
    private static func handOver(
        _ count: Int, to takers: Int, through queue: some HandOver
    ) throws -> Double {
        let taken = Counter()
        let threads = try (1...takers).map { number in
            try Kernel.Thread("taker \(number)") {
                var mine = 0
                while queue.take() { mine += 1 }
                taken.add(mine)
            }
        }
        let start = monotonicNanoseconds()
        for number in 0..<count { queue.put(number) }
        queue.close()
        for thread in threads { thread.join() }
        let elapsed = monotonicNanoseconds() - start
        guard taken.value == count else { fatalError("\(count) packets posted, \(taken.value) taken") }
        return Double(count) * 1_000 / Double(elapsed)
    }
}

/// A queue between threads, for the comparison.
private protocol HandOver: Sendable {
    func put(_ value: Int)
    /// False when the queue is closed and empty.
    func take() -> Bool
    func close()
}

private final class PortQueue: HandOver {
    private let port: CompletionPort
    init() throws { port = try CompletionPort() }
    func put(_ value: Int) { try? port.post(bytes: value) }
    func take() -> Bool {
        if case .completed = port.dequeue() { return true }
        return false
    }
    func close() { port.close() }
}

/// What most programs would write: a queue, a lock, a condition.
private final class MutexQueue: HandOver, @unchecked Sendable {
    private let monitor = Monitor()
    @exclusivity(unchecked) private var queue = CircularQueue<Packet>()
    private var isClosed = false

    /// As much as a packet of the port carries.
    private struct Packet {
        var bytes: Int
        var key: UInt
        var operation: Overlapped?
        var code: Int32
    }

    func put(_ value: Int) {
        monitor.locked { queue.append(Packet(bytes: value, key: 0, operation: nil, code: 0)) }
        monitor.signal()
    }

    func take() -> Bool {
        monitor.locked {
            while queue.isEmpty, !isClosed { monitor.wait() }
            return queue.popFirst() != nil
        }
    }

    func close() {
        monitor.locked { isClosed = true }
        monitor.broadcast()
    }
}
