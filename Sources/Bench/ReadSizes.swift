import CKernel
import Glibc
import Kernel
import Reordering
import Stage

/// A stream is as fast as one read is large (chapter 05): four clients send and read without a pause, and get everything
/// back; with reads of one size each, and with reads that follow the load.
enum ReadSizes {
    private static let clients = 4
    private static let sizes = [1, 4, 16, 64, 256]

    private static func fixed(_ size: Int, _ driver: DriverKind) -> String {
        "reads of \(size) KiB, \(driver)"
    }

    private static func growing(_ driver: DriverKind) -> String { "reads that follow the load, \(driver)" }

    static func measure(seconds: Double, into figures: inout Figures) throws {
        for driver in DriverKind.permitted {
            for size in sizes {
                try run(fixed(size, driver), driver, seconds, &figures) {
                    $0.chunkCapacity = size << 10
                    $0.maximumReadSize = size << 10
                }
            }
            try run(growing(driver), driver, seconds, &figures) { _ in }
        }
    }

    static func compare(_ figures: inout Figures) {
        for driver in DriverKind.permitted {
            for size in sizes.dropLast() {
                figures.compare(fixed(size, driver), to: fixed(sizes.last!, driver))
            }
            figures.compare(growing(driver), to: fixed(sizes.last!, driver), .atLeast(0.85))
        }
    }

    private static func run(
        _ name: String, _ driver: DriverKind, _ seconds: Double, _ figures: inout Figures,
        _ change: (inout StreamHub.Options) -> Void
    ) throws {
        var options = StreamHub.Options()
        (options.workers, options.concurrency, options.batch) = (1, 1, 16)
        options.port.driver = driver
        change(&options)
        // The server has one processor for itself, and the clients another one.
        ck_pin_thread(0, 0)
        let hub = try StreamHub(options)
        let address = try hub.listen { _ in Reordering.Echo() }
        ck_pin_thread(0, 1)
        let start = monotonicNanoseconds()
        let loads = try (0..<clients).map { _ in try Stream(to: address, until: .after(.seconds(seconds))) }
        let ended = boundedResult(.seconds(seconds + 30)) { loads.map { $0.finish() } }
        let elapsed = Double(monotonicNanoseconds() - start) / 1e9
        guard let counts = ended, counts.allSatisfy({ $0.received == $0.sent }) else {
            throw SystemError(EIO, attempted: "get all bytes back from the server")
        }
        let bytes = counts.reduce(0) { $0 + $1.received }
        guard hub.stop() else { throw SystemError(ETIMEDOUT, attempted: "stop the server") }
        figures.add(name, "MB/s", Double(bytes) / elapsed / 1e6)
    }

    /// A client: one thread sends, one reads what comes back.
    private final class Stream: Sendable {
        private let socket: Socket
        private let sent = Counter(), received = Counter()
        private let threads: [Kernel.Thread]
        private static let piece = 256 << 10

        init(to address: Address, until deadline: Deadline) throws {
            socket = try Socket.connected(to: address)
            try socket.setBlocking(true)
            let (socket, sent, received) = (socket, sent, received)
            threads = [
                startThread("sends") {
                    let bytes = [UInt8](repeating: 7, count: Stream.piece)
                    bytes.withUnsafeBytes { bytes in
                        while !deadline.hasPassed, let count = try? socket.sendNow(bytes) { sent.add(count) }
                    }
                    try? socket.shutDownSending()
                },
                startThread("reads") {
                    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: Stream.piece, alignment: 64)
                    defer { room.deallocate() }
                    while let count = try? socket.receiveNow(into: room), count > 0 { received.add(count) }
                },
            ]
        }

        /// Waits for the end. Bytes that went there, and came back.
        func finish() -> (sent: Int, received: Int) {
            for thread in threads { thread.join() }
            socket.close()
            return (sent.value, received.value)
        }
    }
}
