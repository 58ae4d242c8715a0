import Glibc
import Kernel
import Reordering
import Stage

/// 1,000,000 chunks that complete in random order and are handed over in theirs (chapter 05).
enum OrderedChunks {
    static let chunks = 1_000_000

    static func run(_ terminal: Terminal) throws -> Bool {
        var holds = shuffled(terminal)
        for driver in DriverKind.permitted { holds = try underLoad(terminal, driver) && holds }
        return holds
    }

    /// The window alone, beginning shortly before the numbers begin again: whoever is pending completes next, by chance.
    private static func shuffled(_ terminal: Terminal) -> Bool {
        var random = SystemRandomNumberGenerator()
        var isInOrder = true
        var peak = 0
        for capacity in [1, 2, 3, 8, 64] {
            let first = SequenceNumber(.max - UInt32(chunks / 2))
            var window = ReorderWindow<UInt32>(capacity: capacity, first: first)
            var (next, expected, pending) = (first, first, [SequenceNumber]())
            for _ in 0..<chunks {
                while pending.count + window.count < capacity {
                    pending.append(next)
                    next = next.next
                }
                let number = pending.remove(at: Int.random(in: 0..<pending.count, using: &random))
                isInOrder = isInOrder && window.insert(number.value, number) == .taken
                while let value = window.takeNext() {
                    isInOrder = isInOrder && value == expected.value
                    expected = expected.next
                }
            }
            isInOrder = isInOrder && window.peak <= capacity
            peak = max(peak, window.peak)
        }
        terminal.say("\(readable(chunks)) numbers, shuffled, in windows of 1 to 64: at most \(peak) waited")
        return isInOrder
    }

    /// Sixteen bytes in a chunk, eight pending, four workers, of whom some are held back between the packet and the window.
    private static func underLoad(_ terminal: Terminal, _ driver: DriverKind) throws -> Bool {
        var options = StreamHub.Options()
        options.workers = 4
        options.concurrency = 4
        options.pendingReads = 8
        options.chunkCapacity = 16
        options.maximumReadSize = 16
        options.maximumPendingSends = 8_192
        options.firstNumber = SequenceNumber(.max - UInt32(chunks / 2))
        options.port.driver = driver
        var probe = StreamProbe()
        probe.arrived = { chunk in if chunk.number.value % 3 == 0 { sched_yield() } }
        options.probe = probe
        let hub = try StreamHub(options)
        let sink = StreamEnd(KnownBytes(seed: 3), total: 0, piece: 16)
        let listener = try Socket.listener(on: .loopback())
        let client = try Socket.connected(to: try listener.localAddress)
        try listener.setBlocking(true)
        guard let server = try listener.acceptNow() else { return false }
        try client.setBlocking(true)
        try hub.adopt(server, handler: sink)
        let known = KnownBytes(seed: 3)
        let total = chunks * 16
        var sent = 0
        while sent < total {
            var failure: SystemError?
            known.withBytes(at: sent, min(65_536, total - sent)) {
                do { sent += try client.sendNow($0) ?? 0 } catch { failure = error as? SystemError }
            }
            if let failure { throw failure }
        }
        try client.shutDownSending()
        let inTime = sink.over.pass(within: .seconds(120))
        let isClean = hub.stop()
        let counters = hub.counters
        terminal.say(
            "\(driver): \(readable(sink.received)) bytes, 16 in a chunk: \(readable(counters.window.early)) chunks came "
                + "early, at most \(counters.window.mostWaiting) waited, "
                + (sink.wrongAt == nil ? "every byte is right" : "WRONG from byte \(sink.wrongAt!) on"))
        return inTime && isClean && sink.received == total && sink.wrongAt == nil
            && counters.window.mostWaiting <= 8
    }
}
