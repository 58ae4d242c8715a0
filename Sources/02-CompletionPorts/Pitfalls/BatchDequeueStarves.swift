import CompletionPorts
import Kernel
import Stage

/// Two workers come back from their handlers and find eight packets. The first takes its batch, then the second.
enum BatchDequeueStarves {
    private static let packets = 8
    private static let work = Duration.milliseconds(2)

    static let pitfall = Pitfall(
        slug: "batch-dequeue-starves",
        title:
            "one worker takes the whole queue in one batch; the others idle while its packets wait for it",
        broken: { _ in
            let port = BrokenPort()
            return run {
                port.dequeueAll().count
            } post: {
                port.post(key: 1)
            } close: {
                port.close()
            }
        },
        fixed: { driver in
            let port = try CompletionPort.on(driver, concurrency: 2)
            return run {
                var batch = PacketBatch(capacity: 64)
                guard case .packets(let count) = port.dequeue(into: &batch) else { return 0 }
                while batch.next() != nil {}
                return count
            } post: {
                try? port.post(key: 1)
            } close: {
                port.close()
            }
        })

    private static func run(
        take: @escaping @Sendable () -> Int, post: () -> Void, close: () -> Void
    ) -> Observation {
        let team = [SteppedWorker("A"), SteppedWorker("B")]
        // Both are known to the port, and in the middle of a packet.
        for worker in team {
            post()
            worker.begin { _ = take() }
            worker.finish()
        }
        let posted = Deadline.now
        for _ in 0..<packets { post() }
        let first = team.map { _ in Counter() }
        let worst = team.map { _ in Counter() }
        let bothHaveAsked = Gate()
        for (index, worker) in team.enumerated() {
            let (count, longest) = (first[index], worst[index])
            worker.begin {
                var taken = take()
                count.add(taken)
                bothHaveAsked.pass()
                while taken > 0 {
                    for _ in 0..<taken {
                        let waited = Int((Deadline.now.nanoseconds - posted.nanoseconds) / 1_000)
                        longest.add(waited - longest.value)
                        let end = Deadline.after(work)
                        while !end.hasPassed {}
                    }
                    taken = take()
                }
            }
            _ = eventually { count.value > 0 || worker.isAsleep }
        }
        bothHaveAsked.open()
        _ = eventually { team.allSatisfy { $0.isAsleep } }
        close()
        for worker in team { worker.end() }
        return Observation(
            happened: first.contains { $0.value == 0 },
            lines: [
                "\(packets) packets of 2 ms each, two workers; A asks, then B",
                "first batches: A \(first[0].value), B \(first[1].value)",
                "the longest that a packet waited for its handler: \(worst.map(\.value).max()!) µs",
            ])
    }
}
