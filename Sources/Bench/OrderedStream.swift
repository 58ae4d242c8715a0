import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Stage
import Synchronization

/// Bytes of which every position is known: a random text of a prime number of bytes, over and over.
struct KnownBytes: Sendable {
    private let text: [UInt8]

    init(seed: UInt64) {
        var state = seed
        text = (0..<1_048_583).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
    }

    /// Up to `count` bytes from a position of the stream on.
    func withBytes(at position: Int, _ count: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
        let first = position % text.count
        text.withUnsafeBytes {
            body(UnsafeRawBufferPointer(rebasing: $0[first..<min(text.count, first + count)]))
        }
    }

    /// Whether the bytes are those from a position of the stream on.
    func match(_ bytes: UnsafeRawBufferPointer, at position: Int) -> Bool {
        var checked = 0
        var same = true
        while same, checked < bytes.count {
            withBytes(at: position + checked, bytes.count - checked) {
                same = memcmp($0.baseAddress!, bytes.baseAddress! + checked, $0.count) == 0
                checked += $0.count
            }
        }
        return same
    }
}

/// One end of a stream that goes both ways: sends so many known bytes, compares all that it receives.
final class StreamEnd: StreamHandler, @unchecked Sendable {
    let known: KnownBytes
    let total: Int
    let pauses: (port: CompletionPort, one: Int)?
    private let piece: Int
    // All calls come one after the other.
    private var sent = 0
    private var random: UInt64 = 88_172_645_463_325_252
    private(set) var received = 0
    private(set) var wrongAt: Int?
    private(set) var reason: CloseReason?
    let over = Gate()

    init(_ known: KnownBytes, total: Int, piece: Int, pauses: (port: CompletionPort, one: Int)? = nil) {
        self.known = known
        self.total = total
        self.piece = piece
        self.pauses = pauses
    }

    func opened(_ connection: StreamConnection) {
        for _ in 0..<8 { sendMore(connection) }
    }

    func sent(_ token: Int, on connection: StreamConnection) { sendMore(connection) }

    private func sendMore(_ connection: StreamConnection) {
        guard sent < total else {
            if sent == total { connection.finish() }
            sent = total + 1
            return
        }
        known.withBytes(at: sent, min(piece, total - sent)) {
            sent += $0.count
            try? connection.send($0, token: 1)
        }
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        if wrongAt == nil, !known.match(chunk.contents, at: received) { wrongAt = received }
        received += chunk.contents.count
        guard let pauses else { return }
        random = random &* 6_364_136_223_846_793_005 &+ 1
        if (random >> 33) % UInt64(pauses.one) == 0 {
            pauses.port.blocking { _ = usleep(UInt32(random >> 40) % 2_000) }
        }
    }

    func ended(_ connection: StreamConnection) {}

    func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        self.reason = reason
        over.open()
    }

    var isRight: Bool { received == total && wrongAt == nil && reason == .ended }
}

/// 1 GiB in both directions at once through one connection, four workers and eight pending reads on either end
/// (chapter 05).
enum OrderedStream {
    static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        for driver in DriverKind.permitted {
            for isNarrow in [false, true] {
                holds = try run(terminal, driver, isNarrow) && holds
            }
        }
        return holds
    }

    private static func run(_ terminal: Terminal, _ driver: DriverKind, _ isNarrow: Bool) throws -> Bool {
        var options = StreamHub.Options()
        options.workers = 4
        options.concurrency = 4
        options.pendingReads = 8
        options.chunkCapacity = 65_536
        options.maximumReadSize = 65_536
        options.port.driver = driver
        let hubs = try [StreamHub(options), StreamHub(options)]
        let total = 1 << 30
        let ends = hubs.map {
            StreamEnd(
                KnownBytes(seed: 5), total: total, piece: options.chunkCapacity,
                pauses: isNarrow ? ($0.port, 2_000) : nil)
        }
        let start = monotonicNanoseconds()
        let listener = try Socket.listener(on: .loopback())
        let client = try Socket.connected(to: try listener.localAddress)
        try listener.setBlocking(true)
        guard let server = try listener.acceptNow() else { return false }
        if isNarrow { for socket in [client, server] { try socket.setBufferSizes(send: 4_096) } }
        try hubs[0].adopt(server, handler: ends[0])
        try hubs[1].adopt(client, handler: ends[1])
        let inTime = ends.allSatisfy { $0.over.pass(within: .seconds(300)) }
        let seconds = Double(monotonicNanoseconds() - start) / 1e9
        let isClean = hubs.map { $0.stop() }.allSatisfy { $0 }
        let windows = hubs.map(\.counters.window)
        terminal.say(
            "\(driver)\(isNarrow ? ", 4 KiB to send from, readers that pause" : ""): \(total >> 20) MiB each way in "
                + "\(readable(seconds)) s, \(readable(Double(2 * total) / seconds / 1e6)) MB/s")
        terminal.say(
            "  \(readable(windows.reduce(0) { $0 + $1.early })) chunks came early, at most "
                + "\(windows.map(\.mostWaiting).max() ?? 0) waited; "
                + (ends.allSatisfy { $0.wrongAt == nil } ? "every byte is right" : "WRONG BYTES"))
        return inTime && isClean && ends.allSatisfy(\.isRight) && windows.allSatisfy { $0.mostWaiting <= 8 }
    }
}
