import CKernel
import CompletionPorts
import Glibc
import Kernel
import Stage

/// Packets that cost something: what a second worker brings when there is work for two.
enum Computing {
    static let work = 50_000

    static func measure(seconds: Double, into figures: inout Figures) throws {
        ck_unpin_thread(0)
        for workers in [1, 2] {
            let port = try CompletionPort(concurrency: workers)
            let done = Counter()
            let group = try WorkerGroup(workers, on: port) { packet, _ in
                let end = monotonicNanoseconds() + UInt64(work)
                while monotonicNanoseconds() < end {}
                done.add(1)
                // As many packets go round as there are, for as long as the port is open.
                try port.post(key: packet.key)
            }
            for key in 0..<64 { try port.post(key: UInt(key)) }
            let start = monotonicNanoseconds()
            let before = done.value
            usleep(UInt32(seconds * 500_000))
            let rate = Double(done.value - before) * 1e9 / Double(monotonicNanoseconds() - start)
            port.close(draining: false)
            group.stop()
            figures.add("50 µs of computing, \(workers) worker\(workers == 1 ? "" : "s")", "packets/s", rate)
        }
    }

    static func compare(_ figures: inout Figures) {
        figures.compare(
            "50 µs of computing, 2 workers", to: "50 µs of computing, 1 worker", .atLeast(1.5))
    }
}
