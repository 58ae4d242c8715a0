import Contexts
import Glibc
import Kernel
import Reordering
import ReorderingPitfalls
import Stage
import Testing

@Suite("Chapter 05: whole streams", .serialized)
struct Chapter05ReorderingStreams {
    // I5.1, I5.2, I5.3, I5.4
    @Test(
        "100,000 chunks by four workers, around the end of the numbers: every byte in its place",
        arguments: DriverKind.permitted)
    func manyChunks(driver: DriverKind) async throws {
        try await onAThread {
            let chunks = isSanitized ? 10_000 : 100_000
            var probe = StreamProbe()
            probe.arrived = { if $0.number.value % 30 == 0 { sched_yield() } }
            let hub = try makeHub(driver, reads: 8, workers: 4, capacity: 16) {
                $0.probe = probe
                $0.firstNumber = SequenceNumber(.max - UInt32(chunks / 2))
            }
            let pair = try Pair()
            let sink = Comparing()
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say(known(0, 16 * chunks))
            try pair.client.shutDownSending()
            #expect(sink.over.pass(within: .seconds(isSanitized ? 120 : 40)))
            #expect(hub.stop())
            #expect(sink.received == 16 * chunks)
            #expect(sink.wrongAt == nil)
            #expect(sink.reason == .ended)
            #expect(hub.counters.window.mostWaiting <= 8)
            #expect(hub.counters.window.early > 0)
            #expect(hub.counters.chunks.inUse == 0)
        }
    }

    // I5.2, I5.6
    @Test(
        "16 MiB in both directions at once, four workers and eight pending reads on either end",
        arguments: DriverKind.permitted)
    func bothDirections(driver: DriverKind) async throws {
        try await bothWays(driver, total: isSanitized ? 2 << 20 : 16 << 20) { _ in }
    }

    // I5.2, I5.6
    @Test(
        "2 MiB in both directions with 4 KiB to send from and readers that pause",
        arguments: DriverKind.permitted)
    func narrow(driver: DriverKind) async throws {
        try await bothWays(driver, total: 2 << 20, pauses: true) {
            try? $0.setBufferSizes(send: 4_096)
        }
    }

    private func bothWays(
        _ driver: DriverKind, total: Int, pauses: Bool = false,
        _ configure: @escaping @Sendable (Socket) -> Void
    ) async throws {
        try await onAThread {
            let pair = try Pair()
            let hubs = try (0..<2).map { _ in try makeHub(driver, reads: 8, workers: 4, capacity: 8_192) }
            for socket in [pair.server, pair.client] { configure(socket) }
            let ends = (0..<2).map { _ in Comparing(sends: total, pauses: pauses) }
            try hubs[0].adopt(pair.server, handler: ends[0])
            try hubs[1].adopt(pair.client, handler: ends[1])
            for end in ends { #expect(end.over.pass(within: .seconds(isSanitized ? 120 : 40))) }
            for hub in hubs {
                #expect(hub.stop())
                #expect(hub.counters.chunks.inUse == 0)
                #expect(hub.counters.window.mostWaiting <= 8)
            }
            for end in ends {
                #expect(end.received == total)
                #expect(end.wrongAt == nil)
                #expect(end.reason == .ended)
                #expect(end.overlaps == 0)
            }
        }
    }

    // I5.2, I5.7
    @Test(
        "1,000 clients leave at random: one end announced for each, and every chunk back in the pool",
        arguments: DriverKind.permitted)
    func leaving(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 4, workers: 3, capacity: 64)
            let announced = Counter()
            let address = try hub.listen { _ in CountingEcho(announced) }
            let report = LeavingClients(to: address, count: 1_000, threads: 4, together: 25, seed: 11)
                .run { time in
                    if time % 2 == 0, let anybody = hub.connections.first { anybody.close() }
                }
            #expect(hub.stop())
            let counters = hub.counters
            #expect(report.unconnected == 0)
            #expect(report.strange == 0)
            #expect(report.missing == 0)
            #expect(report.echoed > 0)
            #expect(counters.opened == report.connected)
            #expect(counters.announced == report.connected)
            #expect(announced.value == report.connected)
            #expect(counters.chunks.inUse == 0)
            #expect(hub.connections.isEmpty)
            #expect(eventually { hub.counters.alive == 0 })
        }
    }

    @Test(
        "nothing is left of a hub: descriptors and threads are as before",
        arguments: DriverKind.permitted.map(\.rawValue))
    func nothingIsLeft(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = try #require(DriverKind(rawValue: driver))
            func serve() throws {
                let hub = try makeHub(kind, reads: 4)
                let address = try hub.listen { _ in Echo() }
                _ = try ClientLoad(
                    to: address, connections: 20, messageSize: 300, duration: .seconds(10), roundTripsEach: 5
                ).run()
                #expect(hub.stop())
            }
            // The first one opens what stays for the life of the process.
            try serve()
            Resources.settle()
            let (descriptors, threads) = (Resources.openDescriptors, Resources.threads)
            try serve()
            let isAsBefore = eventually {
                Resources.openDescriptors <= descriptors && Resources.threads <= threads
            }
            #expect(isAsBefore, "\(descriptors) descriptors and \(threads) threads before")
        }
    }

}

/// A text of a prime number of bytes, which a stream of known bytes repeats.
private let knownText = (0..<65_521).map { UInt8(truncatingIfNeeded: ($0 &* 0x9e37_79b1) >> 13) }

/// The known bytes of a stream, from a position on.
func known(_ position: Int, _ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    while bytes.count < count {
        let first = (position + bytes.count) % knownText.count
        bytes += knownText[first..<min(knownText.count, first + count - bytes.count)]
    }
    return bytes
}

/// Whether these are the known bytes from a position on.
func isKnown(_ bytes: UnsafeRawBufferPointer, at position: Int) -> Bool {
    known(position, bytes.count).withUnsafeBytes {
        memcmp($0.baseAddress!, bytes.baseAddress!, bytes.count) == 0
    }
}

/// Compares what it receives with the known bytes, sends so many of them itself, and notices calls that overlap.
final class Comparing: StreamHandler, @unchecked Sendable {
    private let sends: Int
    private let pauses: Bool
    private let inside = Counter()
    // All calls come one after the other. (I5.2)
    private var sent = 0
    private(set) var received = 0
    private(set) var wrongAt: Int?
    private(set) var reason: CloseReason?
    private(set) var overlaps = 0
    let over = Gate()

    init(sends: Int = 0, pauses: Bool = false) {
        self.sends = sends
        self.pauses = pauses
    }

    private func alone(_ body: () -> Void) {
        if inside.add() != 1 { overlaps += 1 }
        body()
        inside.add(-1)
    }

    func opened(_ connection: StreamConnection) {
        alone { for _ in 0..<4 { sendMore(connection) } }
    }

    func sent(_ token: Int, on connection: StreamConnection) { alone { sendMore(connection) } }

    private func sendMore(_ connection: StreamConnection) {
        guard sent < sends else { return connection.finish() }
        let count = min(20_000, sends - sent)
        do { try connection.send(known(sent, count), token: 1) } catch { wrongAt = -1 }
        sent += count
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        alone {
            let count = chunk.contents.count
            if wrongAt == nil, !isKnown(chunk.contents, at: received) { wrongAt = received }
            received += count
            if pauses, received % 7 == 0 { usleep(UInt32(received % 500)) }
        }
    }

    func ended(_ connection: StreamConnection) { alone { if sends == 0 { connection.finish() } } }

    func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        alone { self.reason = reason }
        over.open()
    }
}

/// An echo that counts the ends.
final class CountingEcho: StreamHandler {
    private let announced: Counter

    init(_ announced: Counter) { self.announced = announced }

    func received(_ chunk: Chunk, on connection: StreamConnection) { try? connection.send(chunk) }

    func closed(_ connection: StreamConnection, _ reason: CloseReason) { announced.add() }
}
