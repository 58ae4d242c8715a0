import CompletionPorts
import CompletionPortsPitfalls
import Kernel
import Stage
import Synchronization
import Testing

/// A small generator of random numbers, so that a failing schedule can be run again.
struct Chance {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }
    mutating func below(_ limit: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state >> 11) % limit
    }
}

@Suite(.serialized) struct Chapter02CompletionPortsStress {
    /// Every packet is dequeued once and only once, and none stays queued while somebody waits who may run.
    @Test(
        "rules 1 to 4 and 11: posts, I/O, blocking, time-outs and a close at random; each packet comes once",
        arguments: DriverKind.permitted, 1...8)
    func randomSchedule(_ driver: DriverKind, _ seed: Int) throws {
        var chance = Chance(UInt64(seed))
        let workers = 1 + chance.below(6)
        let port = try makePort(1 + chance.below(4), driver, noticing: chance.below(4) != 0)
        let pair = try Pair()
        try port.associate(pair.server, key: 1 << 40)
        let storm = Storm(port, pair)
        try storm.prime(4)
        let threads = (0..<workers).map { index in
            startThread("worker \(index)") { storm.work(UInt64(seed * 100 + index)) }
        }
        let posters = (0..<2).map { index in
            startThread("poster \(index)") { storm.post(1_500, UInt64(seed * 1_000 + index)) }
        }
        for poster in posters { poster.join() }
        // Nobody posts any more but the handlers; all that was posted has to be taken, with nobody's help.
        let isEmpty = eventually(within: .seconds(5)) { storm.isSettled }
        #expect(isEmpty, "\(port.queuedPackets) left, \(port.workers), \(storm.summary)")
        pair.server.close()
        _ = eventually(within: .seconds(5)) { storm.receivesPending == 0 }
        let left = port.close(draining: false)
        let ended = boundedWait(.seconds(5)) { for thread in threads { thread.join() } }
        #expect(ended, "\(port.workers)")
        #expect(left.isEmpty && port.droppedPackets == 0)
        #expect(storm.twice == 0 && storm.receivesPending == 0)
        #expect(storm.taken == storm.posted)
    }
}

/// What the random schedule does.
private final class Storm: @unchecked Sendable {
    let port: CompletionPort
    let pair: Pair
    private let sent = Counter()
    private let received = Counter()
    private let bytesIn = Counter()
    private let bytesOut = Counter()
    private let pending = Counter()
    private let serial = Lock()
    private var seen = [Bool](repeating: false, count: 100_000)
    private var duplicates = 0

    init(_ port: CompletionPort, _ pair: Pair) {
        self.port = port
        self.pair = pair
    }

    var posted: Int { sent.value }
    var taken: Int { received.value }
    var twice: Int { serial.locked { duplicates } }
    var receivesPending: Int { pending.value }
    var isSettled: Bool { taken == posted && bytesIn.value == bytesOut.value && port.queuedPackets == 0 }
    var summary: String { "\(taken) of \(posted) packets, \(bytesIn.value) of \(bytesOut.value) bytes" }

    func prime(_ count: Int) throws {
        for _ in 0..<count { receive(Request(room: 16)) }
    }

    private func receive(_ operation: Request) {
        pending.add()
        do { try pair.server.receive(operation, into: operation.memory) } catch { pending.add(-1) }
    }

    func send(_ key: Int? = nil) {
        let number = sent.add()
        do { try port.post(key: UInt(number)) } catch { Issue.record("post: \(error)") }
    }

    func post(_ count: Int, _ seed: UInt64) {
        var chance = Chance(seed)
        for _ in 0..<count {
            switch chance.below(10) {
            case 0: pause(chance.below(300))
            case 1...3:
                var byte: UInt8 = 1
                if (try? withUnsafeBytes(of: &byte) { try pair.client.sendNow($0) }) == 1 { bytesOut.add() }
            default: send()
            }
        }
    }

    private func pause(_ microseconds: Int) {
        let gate = Gate()
        gate.pass(within: .microseconds(microseconds))
    }

    func work(_ seed: UInt64) {
        var chance = Chance(seed)
        var batch = PacketBatch(capacity: 8)
        while true {
            let timeout: Duration? = chance.below(3) == 0 ? .microseconds(chance.below(500)) : nil
            if chance.below(4) == 0 {
                switch port.dequeue(into: &batch, timeout: timeout) {
                case .packets: while let packet = batch.next() { handle(packet, packet.error, &chance) }
                case .timedOut: continue
                case .closed: return
                }
            } else {
                switch port.dequeue(timeout: timeout) {
                case .completed(let packet): handle(packet, nil, &chance)
                case .failed(let packet, let error): handle(packet, error, &chance)
                case .timedOut: continue
                case .closed: return
                }
            }
        }
    }

    private func handle(_ packet: Packet, _ error: SystemError?, _ chance: inout Chance) {
        if let operation = packet.operation as? Request {
            pending.add(-1)
            bytesIn.add(packet.bytes)
            if error == nil { receive(operation) }
        } else {
            serial.locked {
                if seen[Int(packet.key)] { duplicates += 1 }
                seen[Int(packet.key)] = true
            }
            received.add()
        }
        switch chance.below(40) {
        case 0: pause(chance.below(3_000))
        case 1...2: port.blocking { pause(chance.below(500)) }
        case 3...6: spin(for: .microseconds(chance.below(100)))
        case 7...9: send()
        default: break
        }
    }
}
