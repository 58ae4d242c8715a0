import Kernel
import Stage
import WorkerPools

/// The queue has a bound, and one client takes all of it.
public enum OneClientFillsTheQueue {
    private static let places = 8

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "one-client-fills-the-queue", title: "one client's jobs take every place in the queue",
        // ⚠︎ Broken on purpose: the share of one client is everything.
        broken: { driver in try observe(driver, share: places) },
        fixed: { driver in try observe(driver, share: places / 4) })

    /// A greedy client asks a hundred times, then another one asks once, and nothing is done meanwhile.
    private static func observe(_ driver: DriverKind, share: Int) throws -> Observation {
        let (begun, gate) = (Gate(), Gate())
        let server = try makeServer(driver) {
            $0.jobs = places
            $0.jobsPerClient = share
            $0.probe = { _ in
                begun.open()
                gate.pass()
            }
        }
        defer { gate.open() }
        let address = try server.listen()
        let (greedy, other) = (try LineClient(to: address), try LineClient(to: address))
        try greedy.say("primes 30")
        begun.pass()
        try greedy.socket.say(String(repeating: "primes 30\n", count: 99))
        // One is being done, its share waits, and one was refused.
        let isFull = eventually { server.pool.counters.waiting == share && server.pool.counters.refused > 0 }
        try other.say("primes 10")
        // In a full queue it cannot be; otherwise it comes.
        let patience = share == places ? Duration.milliseconds(200) : Gate.patience
        let isOut = !eventually(within: patience) { server.pool.counters.added == share + 2 }
        let waiting = server.pool.queue.count
        gate.open()
        let answer = try other.hear()
        var answers = 0
        while answers < 100, try greedy.hear() == "10 primes below 30" { answers += 1 }
        let isBack = server.stop()
        return Observation(
            happened: isOut || !isFull || answer != "4 primes below 10" || answers != 100
                || !isBack,
            lines: [
                "a share of \(share) in \(places) places: \(waiting) jobs wait, and the other client's job is "
                    + (isOut ? "not among them" : "one of them"),
                "in the end both have all their answers: \(answers) and \(answer == nil ? 0 : 1)",
            ])
    }
}
