import Glibc
import Kernel

/// Clients of an echo server whose number rises and falls like the tide, while they talk: messages of random length are
/// under way whenever the number crosses a threshold. Each compares what it hears with what it has said.
///
/// Its threads use plain calls that block, for a bounded time.
public struct TidalClients: Sendable {
    /// Where the server listens.
    public var server: Address
    /// How many threads play them.
    public var threads: Int
    /// How many clients a thread has at low tide, and at high tide.
    public var each: ClosedRange<Int>
    /// The longest message, in bytes. It has to fit into the system's buffers on its way there and back.
    public var maximumMessage: Int
    /// The same number gives the same clients.
    public var seed: UInt64
    /// How long a client waits for anything.
    public static let patience = Duration.seconds(10)

    /// Describes the clients.
    public init(
        to server: Address, threads: Int = 2, each: ClosedRange<Int> = 2...20, maximumMessage: Int = 16_384,
        seed: UInt64 = 1
    ) {
        self.server = server
        self.threads = max(1, threads)
        self.each = each
        self.maximumMessage = max(1, maximumMessage)
        self.seed = seed
    }

    /// What the clients have met.
    public struct Report: Sendable, Equatable {
        /// Clients that were connected, in all.
        public internal(set) var connected = 0
        /// Clients that could not connect.
        public internal(set) var unconnected = 0
        /// Messages that were said and came back whole.
        public internal(set) var messages = 0
        /// Bytes in these.
        public internal(set) var bytes = 0
        /// Messages that came back short, or not at all, or too late.
        public internal(set) var missing = 0
        /// Clients whose checksums of what they said and of what they heard differ.
        public internal(set) var wrong = 0
        /// Times that the tide has turned.
        public internal(set) var turns = 0

        /// Whether every byte of every client came back.
        public var isWhole: Bool { unconnected == 0 && missing == 0 && wrong == 0 && messages > 0 }
    }

    /// Plays the clients until the tide has turned so often, or the time is over.
    ///
    /// - Parameter atTurn: Called at every turn, while no client moves; told whether the tide is high.
    public func run(
        turns: Int = .max, for duration: Duration = .seconds(60),
        atTurn: @escaping @Sendable (_ isHigh: Bool) -> Void = { _ in }
    ) -> Report {
        let total = Total()
        let barrier = Barrier(threads)
        let goesOn = Counter()
        goesOn.add()
        let deadline = Deadline.after(duration)
        inThreads(threads, named: "tide") { index in
            var shore = Shore(self, thread: index)
            var turn = 0
            while goesOn.value > 0 {
                shore.move(to: turn % 2 == 0 ? each.upperBound : each.lowerBound)
                // No thread goes on before all have arrived, so that the tide is the same for all.
                barrier.arrive(within: .seconds(60))
                turn += 1
                if index == 0 {
                    atTurn(turn % 2 == 1)
                    shore.report.turns = turn
                    if turn >= turns || deadline.hasPassed { goesOn.add(-1) }
                }
                barrier.arrive(within: .seconds(60))
            }
            shore.move(to: 0)
            total.add(shore.report)
        }
        return total.report
    }

    private struct Client {
        let socket: Socket
        var said: UInt64 = 0
        var heard: UInt64 = 0
        /// Bytes that are on their way back.
        var pending = 0
    }

    /// The clients of one thread.
    private struct Shore {
        private let load: TidalClients
        private var clients: [Client] = []
        private var random: UInt64
        private var memory: [UInt8]
        private var number: Int
        var report = Report()

        init(_ load: TidalClients, thread: Int) {
            self.load = load
            random = (load.seed &+ UInt64(thread) &* 7_919) &* 0x9e37_79b9_7f4a_7c15 | 1
            memory = [UInt8](repeating: 0, count: load.maximumMessage)
            number = thread * 67
        }

        /// Comes nearer to the goal step by step: some talk, some come or go while those words are on their way, and
        /// then all hear.
        mutating func move(to goal: Int) {
            while true {
                for _ in 0..<min(6, clients.count) { say(at: Int(next() % UInt64(clients.count))) }
                let step = Int(next() % 8) + 1
                for _ in 0..<step where clients.count != goal {
                    if clients.count < goal { come() } else { go() }
                }
                for index in clients.indices where next() % 4 > 0 { hear(at: index) }
                if clients.count == goal { break }
                if report.unconnected + report.missing > 100 { break }
            }
            for index in clients.indices { hear(at: index) }
        }

        private mutating func next() -> UInt64 {
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            return random
        }

        private mutating func come() {
            number += 1
            // Different addresses, so that ports that rest for a minute do not run out.
            let local = load.server.isIPv6 ? nil : Address("127.0.0.\(2 + number % 200)", port: 0)
            guard let socket = try? Socket.connected(to: load.server, from: local),
                (try? socket.setBlocking(true)) != nil
            else {
                report.unconnected += 1
                return
            }
            var time = timeval(tv_sec: Int(TidalClients.patience / .seconds(1)), tv_usec: 0)
            for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
                setsockopt(
                    socket.descriptor, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
            }
            report.connected += 1
            clients.append(Client(socket: socket))
        }

        private mutating func go() {
            let index = Int(next() % UInt64(clients.count))
            hear(at: index)
            let client = clients.remove(at: index)
            if client.said != client.heard { report.wrong += 1 }
            client.socket.close()
        }

        private mutating func say(at index: Int) {
            guard clients[index].pending == 0 else { return }
            let count = Int(next() % UInt64(load.maximumMessage)) + 1
            fill(count)
            clients[index].said = checksum(clients[index].said, count)
            var sent = 0
            while sent < count {
                let more = memory.withUnsafeBytes {
                    try? clients[index].socket.sendNow(UnsafeRawBufferPointer(rebasing: $0[sent..<count]))
                }
                guard let more, more > 0 else { break }
                sent += more
            }
            clients[index].pending = count
        }

        private mutating func hear(at index: Int) {
            let count = clients[index].pending
            guard count > 0 else { return }
            clients[index].pending = 0
            var heard = 0
            while heard < count {
                let more = memory.withUnsafeMutableBytes {
                    try? clients[index].socket.receiveNow(into: .init(rebasing: $0[heard..<count]))
                }
                guard let more, more > 0 else { break }
                heard += more
            }
            guard heard == count else {
                report.missing += 1
                return
            }
            clients[index].heard = checksum(clients[index].heard, count)
            report.messages += 1
            report.bytes += count
        }

        private mutating func fill(_ count: Int) {
            var word = next()
            memory.withUnsafeMutableBytes { memory in
                for place in stride(from: 0, to: count, by: 8) {
                    word = word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                    withUnsafeBytes(of: word) {
                        memory.baseAddress!.advanced(by: place).copyMemory(
                            from: $0.baseAddress!, byteCount: min(8, count - place))
                    }
                }
            }
        }

        /// Every bit of every byte, and their order, count.
        private func checksum(_ start: UInt64, _ count: Int) -> UInt64 {
            var sum = start
            memory.withUnsafeBytes { memory in
                var place = 0
                while place + 8 <= count {
                    let word = memory.loadUnaligned(fromByteOffset: place, as: UInt64.self)
                    sum = (sum ^ word) &* 0x0000_0100_0000_01b3
                    sum ^= sum >> 29
                    place += 8
                }
                while place < count {
                    sum = (sum ^ UInt64(memory[place])) &* 0x0000_0100_0000_01b3
                    place += 1
                }
            }
            return sum
        }
    }

    private final class Total: @unchecked Sendable {
        private let lock = Lock()
        private(set) var report = Report()  // under the lock; read when all threads have ended

        func add(_ other: Report) {
            lock.locked {
                report.connected += other.connected
                report.unconnected += other.unconnected
                report.messages += other.messages
                report.bytes += other.bytes
                report.missing += other.missing
                report.wrong += other.wrong
                report.turns = max(report.turns, other.turns)
            }
        }
    }
}
