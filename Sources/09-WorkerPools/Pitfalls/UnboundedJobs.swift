import CKernel
import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Stage
import WorkerPools

/// ⚠︎ Broken on purpose: takes every job, as the article's list does.
public final class BrokenJobQueue: Sendable {
    private let jobs = Guarded<[Job]>([])

    /// How many wait.
    public var count: Int { jobs.locked { $0.count } }

    /// Adds a job, whatever has been added before.
    public func add(_ job: Job) { jobs.locked { $0.append(job) } }

    func take() -> Job? { jobs.locked { $0.isEmpty ? nil : $0.removeFirst() } }
}

/// ⚠︎ Broken on purpose: queues what is asked as fast as it can be read.
final class BrokenAsker: FrameHandler {
    private let queue: BrokenJobQueue

    init(_ queue: BrokenJobQueue) { self.queue = queue }

    func received(_ message: RawSpan, on connection: FramedConnection<Lines>) {
        let line = message.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        queue.add(Job(line, for: connection.stream?.id))
    }
}

/// A client asks faster than the jobs are done.
public enum UnboundedJobs {
    /// How many questions the client has: more than both systems keep.
    static let questions = 10_000
    /// Jobs that may wait in the fixed half.
    static let capacity = 64

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "unbounded-jobs", title: "jobs are queued faster than they are done, without a bound",
        broken: { driver in
            let queue = BrokenJobQueue()
            var options = StreamHub.Options()
            options.port.driver = driver
            let hub = try StreamHub(options)
            let pair = try narrowPair()
            try hub.adopt(pair.server, handler: FramedConnection(Lines(), handler: BrokenAsker(queue)))
            // The one worker is busy with something else: it takes nothing.
            let sent = try push("primes 1", times: questions, to: pair.client)
            let isQueued = eventually { queue.count == questions }
            hub.stop()
            return Observation(
                happened: sent == 9 * questions && isQueued,
                lines: [
                    "the client has sent \(readable(sent / 9)) questions, and was never held back",
                    "the queue holds \(readable(queue.count)) jobs",
                ])
        },
        fixed: { driver in
            let gate = Gate()
            let server = try makeServer(driver) {
                $0.jobs = capacity
                $0.probe = { _ in gate.pass() }
            }
            defer { gate.open() }
            let pair = try narrowPair()
            try server.adopt(pair.server)
            let sent = try push("primes 1", times: questions, to: pair.client)
            let (peak, unread) = (server.pool.counters.peak, pair.server.unread)
            gate.open()
            // The rest of the line that was cut, and all that come behind it.
            let all = Array((0..<questions).map { _ in "primes 1" }.joined(separator: "\n").utf8) + [10]
            let (rest, client) = (Array(all[sent...]), LineClient(pair.client))
            let writer = startThread("rest") { try? pair.client.say(rest, within: .seconds(60)) }
            var answers = 0
            while answers < questions, let answer = try client.hear(), answer == "0 primes below 1" {
                answers += 1
            }
            writer.join()
            let counters = server.pool.counters
            let isBack = server.stop()
            return Observation(
                happened: sent == all.count || peak > capacity || unread == 0 || answers != questions
                    || counters.added != questions || counters.peak > capacity || !isBack,
                lines: [
                    "the client has sent \(readable(sent / 9)) questions, and could send no more",
                    "the queue holds at most \(counters.peak) jobs; \(readable(unread)) bytes wait in the socket",
                    "then a worker comes: \(readable(answers)) questions answered, once each",
                ])
        })

    /// A connection whose systems keep little on either side.
    private static func narrowPair() throws -> Pair {
        let pair = try Pair()
        var size: Int32 = 8_192
        for (socket, option) in [(pair.server, SO_RCVBUF), (pair.client, SO_SNDBUF)] {
            setsockopt(socket.descriptor, SOL_SOCKET, option, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        return pair
    }
}
