import Framing
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: one chunk, one message. The length is looked at; what is missing or too much is not.
public struct BrokenChunkFraming {
    /// Nothing received yet.
    public init() {}

    /// Takes a chunk, and returns what it takes for its message.
    public func take(_ bytes: [UInt8]) -> [[UInt8]] { [Array(bytes.dropFirst(4).prefix(bytes.length))] }
}

/// ⚠︎ Broken on purpose: the same at a connection.
final class BrokenChunkReader: StreamHandler {
    private let heard: Heard

    init(_ heard: Heard) { self.heard = heard }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        for message in BrokenChunkFraming().take(Array(chunk.contents)) { heard.add(message) }
    }
}

/// The network glues three messages together and cuts a fourth in two.
public enum ChunkIsNotMessage {
    private static let texts = ["one", "two", "three", "four is cut"]

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "chunk-is-not-message",
        title: "a chunk is taken for a message: glued ones are lost, cut ones are stumps",
        broken: { driver in try scenario(driver) { BrokenChunkReader($0) } },
        fixed: { driver in
            try scenario(driver) { FramedConnection(LengthPrefixed.article, handler: Collector($0)) }
        })

    private static func scenario(
        _ driver: DriverKind, _ handler: @escaping @Sendable (Heard) -> any StreamHandler
    ) throws -> Observation {
        let heard = Heard()
        let glued = texts[..<3].flatMap(frame)
        let cut = frame(texts[3])
        let pieces = [glued, Array(cut[..<9]), Array(cut[9...])]
        try play(pieces, to: .on(driver)) { handler(heard) }
        return Observation(
            happened: heard.shown != texts,
            lines: [
                "sent: \(texts), in chunks of \(pieces.map(\.count)) bytes",
                "taken for messages: \(heard.shown)",
            ])
    }
}
