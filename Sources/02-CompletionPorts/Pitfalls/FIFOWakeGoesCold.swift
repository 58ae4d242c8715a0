import CompletionPorts
import Kernel
import Stage

/// The nine steps of two workers. Requests come so slowly that one worker could do it all, from warm caches; but the
/// worker that has waited longest is woken, so they take turns, and both are cold every time.
enum FIFOWakeGoesCold {
    static let pitfall = Pitfall(
        slug: "fifo-wake-goes-cold",
        title: "the worker that has waited longest is woken, so the work goes round through all of them",
        broken: { driver in
            let port = BrokenPort()
            let pairs = try Pair.several(3)
            // Their completions come by way of the system's own driver thread.
            for pair in pairs { try pair.server.associate(with: port, key: 1, driver: Driver.system) }
            defer { port.close() }
            return try run(pairs) {
                _ = port.dequeue()
            } waiting: {
                port.waiting
            }
        },
        fixed: { driver in
            let port = try CompletionPort.on(driver, concurrency: 2)
            let pairs = try Pair.several(3)
            for pair in pairs { try port.associate(pair.server, key: 1) }
            defer { port.close() }
            return try run(pairs) {
                _ = port.dequeue()
            } waiting: {
                port.workers.waiting
            }
        })

    private static func run(
        _ pairs: [Pair], take: @escaping @Sendable () -> Void, waiting: () -> Int
    ) throws -> Observation {
        let workers = [SteppedWorker("A"), SteppedWorker("B")]
        let requests = pairs.map { _ in Request() }
        for (pair, request) in zip(pairs, requests) { try pair.server.receive(request, into: request.memory) }
        var lines: [String] = []
        var order: [String] = []
        func say(_ line: String) { lines.append("\(lines.count + 1). \(line)") }
        func ask(_ worker: SteppedWorker, as number: Int) {
            worker.begin(take)
            _ = eventually { waiting() == number && worker.isFastAsleep }
        }
        func waitingNames() -> String {
            workers.filter { $0.isAsleep }.map(\.name).joined(separator: " and ")
        }
        /// One request completes: who gets it?
        func complete() throws -> SteppedWorker? {
            let before = workers.filter { !$0.isDone }
            try pairs[order.count].client.say("x")
            var got: SteppedWorker?
            _ = eventually {
                got = before.first { $0.isDone }
                return got != nil
            }
            order.append(got?.name ?? "nobody")
            return got
        }
        for (index, worker) in workers.enumerated() { ask(worker, as: index + 1) }
        say("A asks for a packet, then B does")
        say("waiting: \(waitingNames())")
        let first = try complete()
        say("a request completes, and goes to \(order[0])")
        say("waiting: \(waitingNames())")
        if let first { ask(first, as: 2) }
        say("\(order[0]) has handled it, and asks again")
        say("waiting: \(waitingNames())")
        _ = try complete()
        say("the second request completes, and goes to \(order[1])")
        say("waiting: \(waitingNames())")
        _ = try complete()
        say("the third completes while \(order[1]) is busy, and goes to \(order[2])")
        for pair in pairs { pair.server.close() }
        for worker in workers { worker.finish() }
        for worker in workers { worker.end() }
        return Observation(happened: order != ["B", "B", "A"], lines: lines)
    }
}
