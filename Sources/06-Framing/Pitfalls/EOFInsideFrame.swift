import Framing
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: when the stream ends, it ends.
final class BrokenEndReader: StreamHandler, @unchecked Sendable {
    private let heard: Heard
    // In the handler's calls only.
    private var bytes: [UInt8] = []

    init(_ heard: Heard) { self.heard = heard }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        bytes += chunk.contents
        while bytes.count >= 4, bytes.count >= 4 + bytes.length {
            heard.add(Array(bytes[4..<4 + bytes.length]))
            bytes.removeFirst(4 + bytes.length)
        }
    }

    func ended(_ connection: StreamConnection) {
        heard.say("ended in order")
        connection.finish()
    }
}

/// One client says goodbye behind its last frame, another one in the middle of it.
public enum EOFInsideFrame {
    private static let order = frame("order 7: 10 pieces") + frame("order 8: 20 pieces")

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "eof-inside-frame",
        title: "the stream ends in the middle of a frame, and the stump is taken for a clean end",
        broken: { driver in try scenario(driver) { BrokenEndReader($0) } },
        fixed: { driver in
            try scenario(driver) { FramedConnection(LengthPrefixed.article, handler: Collector($0)) }
        })

    private static func scenario(
        _ driver: DriverKind, _ handler: @escaping @Sendable (Heard) -> any StreamHandler
    ) throws -> Observation {
        var verdicts: [String] = []
        for length in [order.count / 2, order.count - 5] {
            let heard = Heard()
            try play([Array(order[..<length])], to: .on(driver)) { handler(heard) }
            let verdict = heard.error?.description ?? heard.verdicts.joined()
            verdicts.append("\(heard.shown), \(verdict)")
        }
        let isTold = verdicts[1].contains(
            "offset \(order.count - 5): the stream ended after 17 of a frame's 22 bytes")
        return Observation(
            happened: !(verdicts[0].hasSuffix("ended in order") && isTold),
            lines: [
                "\(order.count / 2) bytes, one frame: \(verdicts[0])",
                "\(order.count - 5) bytes, one and a stump: \(verdicts[1])",
            ])
    }
}
