import CompletionPorts
import Glibc
import Kernel
import Stage

/// Worker A polls before it sleeps. Worker B brings two packets, takes one, and has A woken for the other; but B is quick
/// and takes that one, too. A's poll has the wake-up, A finds nothing, and sleeps. Is it woken for the next packet?
enum PollEatsTheWakeup {
    static let pitfall = Pitfall(
        slug: "poll-eats-the-wakeup",
        title: "a worker that polls takes the wake-up meant for it, finds nothing, and sleeps for ever",
        broken: { driver in
            try run(patience: .milliseconds(300)) { polls throws(SystemError) in
                let port = try BrokenPollingPort(driver, pollBeforeSleep: polls)
                return Subject { socket throws(SystemError) in
                    try socket.associate(with: port, key: 1, driver: port.driver)
                } take: {
                    port.dequeue()
                } post: {
                    port.post(key: 3)
                } close: {
                    port.close()
                }
            }
        },
        fixed: { driver in
            try run(patience: Gate.patience) { polls throws(SystemError) in
                var options = CompletionPort.Options()
                options.driver = driver
                options.pollBeforeSleep = polls
                // Or the sampler promises A, now and then, what B is about to take.
                options.noticesBlocking = false
                let port = try CompletionPort(concurrency: 2, options: options)
                return Subject { socket throws(SystemError) in
                    try port.associate(socket, key: 1)
                } take: {
                    if case .completed(let packet) = port.dequeue() { packet.key } else { nil }
                } post: {
                    try? port.post(key: 3)
                } close: {
                    port.close()
                }
            }
        })

    /// A port of either kind.
    private struct Subject {
        let associate: (Socket) throws(SystemError) -> Void
        let take: @Sendable () -> UInt?
        let post: () -> Void
        let close: () -> Void
    }

    /// What has to wake A.
    private enum News: String, CaseIterable {
        case packet = "a packet is posted"
        case end = "the port is closed"
    }

    /// Holds the thread that polls, inside its poll: it delivers what is not the port's on the way.
    private final class Holder: CompletionTarget, @unchecked Sendable {
        let (holds, letGo) = (Gate(), Gate())

        override func take(_ completed: inout CompletionList) {
            while let operation = completed.popFirst() { operation.takeRetainedValue().wasDequeued() }
            holds.open()
            letGo.pass()
        }
    }

    private static func run(
        patience: Duration, make: (Duration) throws(SystemError) -> Subject
    ) throws -> Observation {
        var lines = ["A polls, B takes two packets; A, woken for the second, finds nothing and sleeps"]
        var happened = false
        for news in News.allCases {
            let isLost = try isLost(news, patience, make)
            happened = happened || isLost
            lines.append("then \(news.rawValue): " + (isLost ? "A sleeps on" : "A is woken"))
        }
        return Observation(happened: happened, lines: lines)
    }

    private static func isLost(
        _ news: News, _ patience: Duration, _ make: (Duration) throws(SystemError) -> Subject
    ) throws -> Bool {
        // Polling goes on until B is done. On a busy machine that may take a while, and then it is done once more.
        var polls = Duration.milliseconds(250)
        while polls < .seconds(10) {
            if let isLost = try attempt(news, patience, polls, try make(polls)) { return isLost }
            polls *= 2
        }
        throw SystemError(ETIMEDOUT, attempted: "have two workers do their steps in time")
    }

    /// Nil when A has come to the end of its polling too early.
    private static func attempt(
        _ news: News, _ patience: Duration, _ polls: Duration, _ port: Subject
    ) throws -> Bool? {
        let (held, pairs) = (try Pair(), try Pair.several(2))
        let holder = Holder()
        // One that holds A, and one that wakes it at the end, whatever has happened to the port's own wake-ups.
        for request in [Request(room: 1), Request(room: 1)] {
            request.routineTarget = holder
            try held.server.receive(request, into: request.memory)
        }
        for socket in [held.server] + pairs.map(\.server) { try port.associate(socket) }
        let (a, b) = (SteppedWorker("A"), SteppedWorker("B"))
        let (woken, isOver) = (Gate(), Gate())
        try held.client.say("x")
        let start = monotonicNanoseconds()
        let take = port.take
        a.begin {
            while take() != nil { woken.open() }
            isOver.open()
        }
        holder.holds.pass()
        for pair in pairs { try pair.client.say("x") }
        for pair in pairs {
            var wish = pollfd(fd: pair.server.descriptor, events: Int16(POLLIN), revents: 0)
            _ = poll(&wish, 1, 1_000)
        }
        b.begin {
            // Complete already, or known at the next look into the driver: there are two packets then.
            for pair in pairs {
                let request = Request()
                try? pair.server.receive(request, into: request.memory)
            }
            for _ in pairs { _ = take() }
        }
        b.finish()
        let isPolling = Duration.nanoseconds(monotonicNanoseconds() - start) < polls / 2
        holder.letGo.open()
        _ = eventually { a.isFastAsleep }
        var isLost = false
        switch news {
        case .packet:
            port.post()
            isLost = !woken.pass(within: patience)
            port.close()
        case .end:
            port.close()
            isLost = !isOver.pass(within: patience)
        }
        try held.client.say("y")
        b.end()
        a.end()
        for pair in pairs + [held] { pair.server.close() }
        return isPolling ? isLost : nil
    }
}
