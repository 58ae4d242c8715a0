import Glibc
import Kernel

/// Clients of an echo server that leave: some before they have said anything, some in the middle, some with a reset,
/// some when the server closes. Each compares what it hears with what it has said.
///
/// Its threads use plain calls that block, for a bounded time.
public struct LeavingClients: Sendable {
    /// How a client leaves.
    public enum Way: Int, CaseIterable, Sendable {
        /// Closes without a word.
        case silently
        /// Resets without a word.
        case silentlyWithReset
        /// Says something and closes without waiting for the answer.
        case withoutAnswer
        /// Says something and resets.
        case withReset
        /// Hears half of its answer and resets.
        case midMessage
        /// Hears its answer, says that it will send no more, and waits for the server's end.
        case inOrder
        /// Hears its answer and closes.
        case afterAnswer
        /// Hears its answer, waits a little for the server to close, and closes.
        case closedByServer
    }

    /// Where the server listens.
    public var server: Address
    /// How many clients come in all.
    public var count: Int
    /// How many threads play them.
    public var threads: Int
    /// How many clients of a thread are connected before the first of them leaves.
    public var together: Int
    /// The ways that occur.
    public var ways: [Way]
    /// The same number gives the same clients.
    public var seed: UInt64
    /// A byte that no client says: what the server sends of its own accord consists of it, and is skipped.
    public static let push = UInt8.max
    /// How long a client waits for anything.
    public static let patience = Duration.seconds(5)

    /// Describes the clients.
    public init(
        to server: Address, count: Int, threads: Int = 4, together: Int = 25, ways: [Way] = Way.allCases,
        seed: UInt64 = 1
    ) {
        self.server = server
        self.count = count
        self.threads = threads
        self.together = together
        self.ways = ways
        self.seed = seed
    }

    /// What the clients have met.
    public struct Report: Sendable {
        /// Clients that were connected.
        public var connected = 0
        /// Clients that could not connect.
        public var unconnected = 0
        /// How many left in each way.
        public var left: [Way: Int] = [:]
        /// Bytes that came back right.
        public var echoed = 0
        /// Bytes that a client heard and had not said: another client's.
        public var strange = 0
        /// Answers that did not come, though the connection stood.
        public var missing = 0
    }

    /// Plays all clients and returns when the last has left.
    public func run() -> Report {
        let total = Total()
        let each = max(1, threads)
        let load = self
        inThreads(each, named: "clients") { index in
            let share = load.count / each + (index < load.count % each ? 1 : 0)
            total.add(load.play(share, as: index))
        }
        return total.report
    }

    /// Plays all clients, while another thread does `disturb` again and again, with a short pause after each time.
    public func run(disturbedBy disturb: @escaping @Sendable (_ time: Int) -> Void) -> Report {
        let isOver = Gate()
        let disturber = startThread("disturber") {
            var time = 0
            while !isOver.pass(within: .microseconds(500)) {
                disturb(time)
                time += 1
            }
        }
        let report = run()
        isOver.open()
        disturber.join()
        return report
    }

    private func play(_ share: Int, as thread: Int) -> Report {
        var report = Report()
        var random = Random(state: seed &* 0x9e37_79b9_7f4a_7c15 &+ UInt64(thread + 1))
        var done = 0
        while done < share {
            var present: [Socket] = []
            for number in 0..<min(together, share - done) {
                // Different addresses, so that ports that rest for a minute do not run out.
                let local = Address("127.0.0.\(2 + (thread * 31 + done + number) % 200)", port: 0)
                if let socket = try? Socket.connected(to: server, from: server.isIPv6 ? nil : local),
                    (try? socket.setBlocking(true)) != nil
                {
                    setPatience(LeavingClients.patience, socket)
                    present.append(socket)
                    report.connected += 1
                } else {
                    report.unconnected += 1
                }
            }
            done += min(together, share - done)
            while !present.isEmpty {
                let socket = present.remove(at: Int(random.next() % UInt64(present.count)))
                let way = ways[Int(random.next() % UInt64(ways.count))]
                leave(socket, way, &random, &report)
                report.left[way, default: 0] += 1
            }
        }
        return report
    }

    private func leave(_ socket: Socket, _ way: Way, _ random: inout Random, _ report: inout Report) {
        // No two clients say the same: 16 bytes at random, none of them a push.
        let words = (0..<16).map { _ in UInt8(random.next() % UInt64(LeavingClients.push)) }
        switch way {
        case .silently: break
        case .silentlyWithReset: try? socket.setAbortiveClose()
        case .withoutAnswer: say(words, socket)
        case .withReset:
            say(words, socket)
            try? socket.setAbortiveClose()
        case .midMessage:
            say(words, socket)
            hear(8, of: words, socket, &report)
            try? socket.setAbortiveClose()
        case .inOrder:
            say(words, socket)
            hear(words.count, of: words, socket, &report)
            try? socket.shutDownSending()
            if !hasEnded(socket, &report) { report.missing += 1 }
        case .afterAnswer:
            say(words, socket)
            hear(words.count, of: words, socket, &report)
        case .closedByServer:
            say(words, socket)
            hear(words.count, of: words, socket, &report)
            setPatience(.milliseconds(20), socket)
            _ = hasEnded(socket, &report)
        }
        socket.close()
    }

    private func setPatience(_ patience: Duration, _ socket: Socket) {
        let microseconds = Int(patience / .microseconds(1))
        var time = timeval(tv_sec: microseconds / 1_000_000, tv_usec: microseconds % 1_000_000)
        setsockopt(
            socket.descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }

    private func say(_ words: [UInt8], _ socket: Socket) {
        // The connection may be gone already.
        words.withUnsafeBytes { _ = try? socket.sendNow($0) }
    }

    /// Takes the next byte that is no push; nil at the end, after a reset, and when the time is over.
    private func nextByte(_ socket: Socket, _ ended: inout Bool) -> UInt8? {
        while true {
            var byte: UInt8 = 0
            switch withUnsafeMutableBytes(
                of: &byte, { memory in Swift.Result { try socket.receiveNow(into: memory) } })
            {
            case .success(1): if byte != LeavingClients.push { return byte }
            case .success(.none): return nil
            default:
                ended = true
                return nil
            }
        }
    }

    private func hear(_ count: Int, of words: [UInt8], _ socket: Socket, _ report: inout Report) {
        for word in words[..<count] {
            var ended = false
            guard let byte = nextByte(socket, &ended) else {
                // The server may close whenever it likes; silence is another matter.
                if !ended { report.missing += 1 }
                return
            }
            if byte == word { report.echoed += 1 } else { report.strange += 1 }
        }
    }

    /// Waits for the server's end; says whether it has come.
    private func hasEnded(_ socket: Socket, _ report: inout Report) -> Bool {
        var ended = false
        while nextByte(socket, &ended) != nil { report.strange += 1 }
        return ended
    }

    private struct Random {
        var state: UInt64

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
    }

    private final class Total: @unchecked Sendable {
        private let lock = Lock()
        private(set) var report = Report()  // under the lock; read when all threads have ended

        func add(_ other: Report) {
            lock.locked {
                report.connected += other.connected
                report.unconnected += other.unconnected
                report.left.merge(other.left, uniquingKeysWith: +)
                report.echoed += other.echoed
                report.strange += other.strange
                report.missing += other.missing
            }
        }
    }
}
