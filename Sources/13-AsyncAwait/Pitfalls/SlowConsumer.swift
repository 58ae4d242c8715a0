import AsyncAwait
import Contexts
import Glibc
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: hands everything that comes to a stream without a bound.
private final class BrokenBridge: StreamHandler {
    let bytes: AsyncStream<[UInt8]>
    private let continuation: AsyncStream<[UInt8]>.Continuation

    init() { (bytes, continuation) = AsyncStream.makeStream() }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        continuation.yield(Array(chunk.contents))
    }
    func ended(_ connection: StreamConnection) {
        continuation.finish()
        connection.finish()
    }
    func closed(_ connection: StreamConnection, _ reason: CloseReason) { continuation.finish() }
}

/// A sequence that reads ahead without a bound.
public enum SlowConsumer {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "slow-consumer",
        title: "a sequence reads ahead without a bound while its consumer is slow",
        broken: { driver in
            let executor = try makeExecutor(driver) { $0.maximumReadSize = $0.chunkCapacity }
            let pair = try smallPair()
            let bridge = BrokenBridge()
            let stream = try executor.hub.adopt(pair.server, handler: bridge)
            let mayGoOn = Latch()
            let consumer = executor.start {
                await mayGoOn.wait()
                for await _ in bridge.bytes {}
            }
            let (sent, held) = try flood(pair, stream)
            mayGoOn.open()
            try pair.client.abort()
            consumer.over.pass()
            executor.stop()
            return observe(sent, held)
        },
        fixed: { driver in
            let executor = try makeExecutor(driver) { $0.maximumReadSize = $0.chunkCapacity }
            let pair = try smallPair()
            let connection = try executor.adopt(pair.server)
            let mayGoOn = Latch()
            let consumer = executor.start {
                try? await connection.use { (connection) async throws(SystemError) in
                    await mayGoOn.wait()
                    while try await connection.next() != nil {}
                }
            }
            let (sent, held) = try flood(pair, connection.stream)
            mayGoOn.open()
            try pair.client.abort()
            consumer.over.pass()
            executor.stop()
            return observe(sent, held)
        })

    private static let total = 4 << 20
    /// What two pending reads of the hub bring.
    private static let bound = 2 * StreamHub.Options().chunkCapacity

    /// With little room in the system, so that what is sent is seen where it is kept.
    private static func smallPair() throws(SystemError) -> Pair {
        let pair = try Pair()
        try pair.server.setBufferSizes(receive: 32_768)
        try pair.client.setBufferSizes(send: 32_768)
        return pair
    }

    /// Sends until the server takes no more, or everything is sent. How much was sent, and how much of it the program holds.
    private static func flood(_ pair: Pair, _ stream: StreamConnection) throws -> (sent: Int, held: Int) {
        let piece = [UInt8](repeating: 7, count: 65_536)
        var sent = 0
        while sent < total {
            let count = try piece.withUnsafeBytes { try pair.client.sendNow($0) }
            sent += count ?? 0
            if count == nil, !pair.client.waits(for: Int32(POLLOUT), until: .after(.milliseconds(300))) {
                break
            }
        }
        if sent >= total { _ = eventually { stream.traffic.bytesReceived >= sent } }
        return (sent, stream.traffic.bytesReceived)
    }

    private static func observe(_ sent: Int, _ held: Int) -> Observation {
        Observation(
            happened: held > bound,
            lines: [
                "the consumer asks for nothing; the client could send \(readable(sent)) bytes",
                "the program holds \(readable(held)) of them; its pending reads have room for \(readable(bound))",
            ])
    }
}
