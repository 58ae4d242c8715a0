import CompletionPorts
import Kernel
import Stage

/// Eight workers are ready, and eight packets come: without a limit eight threads compute at once, whatever the
/// number of processors, and the system spends its time on changing from one to the other.
enum TooManyRunnableThreads {
    static let workers = 8
    static let limit = 2
    private static let packets = 24

    static let pitfall = Pitfall(
        slug: "too-many-runnable-threads",
        title: "as many workers run at once as there are packets, however few processors there are",
        broken: { _ in
            let port = BrokenPort()
            return run {
                port.dequeue() != nil
            } post: {
                port.post(key: 1)
            } close: {
                port.close()
            }
        },
        fixed: { driver in
            let port = try CompletionPort.on(driver, concurrency: limit)
            return run {
                if case .completed = port.dequeue() { true } else { false }
            } post: {
                try? port.post(key: 1)
            } close: {
                port.close()
            }
        })

    private static func run(
        take: @escaping @Sendable () -> Bool, post: () -> Void, close: () -> Void
    ) -> Observation {
        let inside = Counter()
        let handled = Gate(count: packets)
        let threads = (0..<workers).map { index in
            startThread("worker \(index)") {
                while take() {
                    inside.add()
                    // Computes, for long enough that everybody who may come in does come in.
                    let end = Deadline.after(.milliseconds(inside.peak > limit ? 200 : 5))
                    while inside.peak < workers, !end.hasPassed {}
                    inside.add(-1)
                    handled.open()
                }
            }
        }
        for _ in 0..<packets { post() }
        let isServed = handled.pass()
        close()
        for thread in threads { thread.join() }
        return Observation(
            happened: inside.peak > limit || !isServed,
            lines: [
                "\(workers) workers, \(packets) packets, wanted at a time: \(limit)",
                "handlers that ran at once, at most: \(inside.peak)",
            ])
    }
}
