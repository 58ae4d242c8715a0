import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Stage
import Timeline
import WorkerPools
import WorkerPoolsPitfalls

/// How long the one computation takes.
private let work = Duration.milliseconds(200)

/// What the others have seen, and how many bytes of theirs were read while the computation went on.
private struct Waits {
    let waits: LatencyHistogram
    let heard: Int
}

/// One client asks for a computation of 200 ms, 32 others say hello every 10 ms: their waits.
func showComputation(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("One client's computation of 200 ms, and 32 others who say hello")
    let (inHandler, asJob) = (try waits(options, inHandler: true), try waits(options, inHandler: false))
    let most = Double(max(inHandler.waits.longest, asJob.waits.longest))
    for (name, seen) in [("in the handler", inHandler), ("as a job", asJob)] {
        for (which, nanoseconds) in [
            ("half of them", nanoseconds(seen.waits.percentile(50))),
            ("99 of 100", nanoseconds(seen.waits.percentile(99))),
            ("the longest", seen.waits.longest),
        ] {
            terminal.bar(
                "\(name), \(which)", Double(nanoseconds), of: most, width: 28,
                figure: readable(.nanoseconds(nanoseconds)))
        }
    }
    terminal.say(
        "hellos read during it: \(inHandler.heard / 6) in the handler, \(asJob.heard / 6) as a job")
    if options.workers ?? 1 == 1 {
        terminal.claim("in the handler: nobody is heard until it is done", holds: inHandler.heard == 0)
    }
    terminal.claim("as a job: the others are heard meanwhile", holds: asJob.heard > 0)
}

private func nanoseconds(_ time: Duration) -> Int { Int(time / .nanoseconds(1)) }

private func waits(_ options: Stage.Options, inHandler: Bool) throws -> Waits {
    let workers = options.workers ?? 1
    let address: Address
    let stop: () -> Bool
    let heard = Counter()
    // Computes, and counts what is read on the hub meanwhile.
    @Sendable func computeAndCount(_ hub: StreamHub?) {
        let before = hub?.counters.traffic.bytesReceived ?? 0
        compute(for: work)
        heard.add((hub?.counters.traffic.bytesReceived ?? 0) - before)
    }
    if inHandler {
        var choices = StreamHub.Options()
        choices.workers = workers
        choices.concurrency = options.concurrency ?? 0
        choices.port.driver = options.driver
        let hub = try StreamHub(choices)
        address = try hub.listen { _ in
            FramedConnection(
                Lines(),
                handler: BrokenLines { line in
                    if line != "hello" { computeAndCount(hub) }
                    return line
                })
        }
        stop = { hub.stop() }
    } else {
        let served = Guarded<StreamHub?>(nil)
        let server = try makeServer(
            options.driver, ioWorkers: workers, logicalWorkers: max(1, options.number(logical) ?? 1)
        ) {
            $0.jobs = options.number(jobs) ?? 1_024
            $0.probe = { _ in computeAndCount(served.locked { $0 }) }
        }
        served.locked { $0 = server.hub }
        address = try server.listen()
        stop = { server.stop() }
    }
    let load = try HelloLoad(to: address, clients: 32, every: .milliseconds(10))
    let asking = try LineClient(to: address)
    let asker = startThread("asker") {
        usleep(100_000)
        _ = try? asking.ask("primes 30")
    }
    let report = try load.run(for: .milliseconds(450))
    asker.join()
    guard stop(), report.unanswered == 0 else { throw SystemError(ETIMEDOUT, attempted: "answer all") }
    return Waits(waits: report.waits, heard: heard.value)
}

/// The lanes: port's workers, logical workers, and the writer of the screen's messages.
func showLanes(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Where it is done: the port's worker, and two logical workers")
    let shown = Guarded<[String]>([])
    let messages = try MessageQueue { line in shown.locked { $0.append(line) } }
    let server = try makeServer(options.driver, logicalWorkers: 2) {
        $0.messages = messages
        $0.probe = { job in compute(for: .milliseconds(job.command == "primes 30" ? 12 : 6)) }
    }
    let address = try server.listen()
    let clients = try (0..<4).map { _ in try LineClient(to: address) }
    for client in clients { guard try client.ask("hello") == "hello" else { return } }
    let before = server.hub.counters.traffic
    Recorder.start()
    try clients[0].socket.say("primes 30\nprimes 20\nprimes 10\n")
    var isRight = true
    for _ in 1...5 {
        usleep(4_000)
        for client in clients.dropFirst() { isRight = try client.ask("hello") == "hello" && isRight }
    }
    let answers = try (0..<3).map { _ in try clients[0].hear() }
    let recording = Recorder.stop()
    terminal.draw(recording)
    terminal.say()
    for answer in answers { terminal.say("A hears: \(answer ?? "nothing")") }
    isRight = isRight && answers == ["10 primes below 30", "8 primes below 20", "4 primes below 10"]
    let counters = server.pool.counters
    let traffic = server.hub.counters.traffic
    let isBack = server.stop()
    messages.stop()
    terminal.say("messages for the screen: \(messages.counters.written), by one thread")
    terminal.claim("every answer in its place, and hello meanwhile", holds: isRight && isBack)
    try options.saveTrace(recording)
    if let path = options.value(.svg) {
        let figure = Figure(
            clients: clients.count, read: traffic.bytesReceived - before.bytesReceived, hellos: 15,
            jobs: counters, answers: answers.count + 15, messages: messages.counters)
        try writeFile(path, figure.svg())
    }
}
