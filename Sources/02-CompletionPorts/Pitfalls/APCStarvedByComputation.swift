import CompletionPorts
import Glibc
import Kernel
import Stage

/// A completion that needs the thread that issued the request waits until that thread has time. A port's does not.
///
/// The routine that starves is in chapter 01; here is what takes its place.
public enum APCStarvedByComputation {
    /// Completions that arrive while their poster computes.
    public static let rounds = 40
    private static let attempts = 5
    /// How long a completion takes to reach a worker, unless the machine is busy with something else.
    public static let bound = Duration.milliseconds(2)

    /// Who posts, and computes.
    public enum Poster: String, Sendable, CaseIterable {
        /// A thread that is no worker. One worker waits at the port.
        case application = "a thread of the application"
        /// A handler, on one of two workers; two may run.
        case handler = "a handler, one of two workers"
    }

    /// The poster posts a receive and computes, without a system call, until it sees that the bytes were handled.
    ///
    /// That it is handled at all meanwhile has to be so each time. How fast can be seen on a machine that has
    /// processors to spare, so a run in which all are slow is repeated a few times.
    public static func fixed(_ driver: DriverKind, poster: Poster) throws -> Observation {
        var (seen, wasMerelySlow) = try run(driver, poster)
        for _ in 1..<attempts where wasMerelySlow { (seen, wasMerelySlow) = try run(driver, poster) }
        return seen
    }

    private static func run(_ driver: DriverKind, _ poster: Poster) throws -> (
        Observation, wasMerelySlow: Bool
    ) {
        let port = try CompletionPort.on(driver, concurrency: poster == .application ? 1 : 2)
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        let request = Request(room: 1)
        let handled = Counter()
        let computing = Counter()
        let gaveUp = Counter()
        let postAndCompute: @Sendable () -> Void = {
            let before = handled.value
            try? pair.server.receive(request, into: request.memory)
            computing.add()
            let end = Deadline.after(.seconds(2))
            while handled.value == before {
                if end.hasPassed {
                    gaveUp.add()
                    break
                }
            }
            computing.add(-1)
        }
        let workers = try WorkerGroup(poster == .application ? 1 : 2, on: port) { packet, _ in
            if packet.isPosted { postAndCompute() } else { handled.add() }
        }
        var waits: [Duration] = []
        for _ in 0..<rounds {
            var thread: Kernel.Thread?
            if poster == .application {
                thread = startThread("application", postAndCompute)
            } else {
                try port.post()
            }
            guard eventually({ computing.value == 1 }) else { break }
            let before = monotonicNanoseconds()
            let count = handled.value
            try pair.client.say("x")
            let end = Deadline.after(.seconds(2))
            while handled.value == count, !end.hasPassed { usleep(50) }
            waits.append(.nanoseconds(monotonicNanoseconds() - before))
            guard eventually({ computing.value == 0 }) else { break }
            thread?.join()
        }
        pair.server.close()
        workers.stop()
        let quick = waits.count { $0 <= bound }
        let isStarved = gaveUp.value > 0 || handled.value < rounds
        // A busy machine delays most of them; a poster that had to come back first would delay them all.
        let isSlow = quick == 0
        let observation = Observation(
            happened: isStarved || isSlow,
            lines: [
                "\(poster.rawValue) posts a receive and computes; the bytes come \(rounds) times",
                "handled while the poster still computed: \(waits.count - gaveUp.value)",
                "handled within \(bound.inMilliseconds) of the client's send: \(quick)",
            ])
        return (observation, isSlow && !isStarved)
    }
}
