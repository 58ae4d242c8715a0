import Framing
import Glibc
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: behind the header there is a C string. Its end is where a 0 is, and where that is, nobody has
/// said.
final class BrokenTextReader: StreamHandler {
    private let heard: Heard

    init(_ heard: Heard) { self.heard = heard }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        let start = chunk.contents.baseAddress! + 4
        // Bounded by the buffer's size, so that this program survives it. printf has no such bound.
        let length = strnlen(start.assumingMemoryBound(to: CChar.self), TextWithoutTerminator.capacity - 4)
        heard.add(Array(UnsafeRawBufferPointer(start: start, count: length)))
    }
}

/// A long text, then a short one, in the same buffer; then one with a 0 in it, and one that is none.
public enum TextWithoutTerminator {
    static let capacity = 36
    /// Fills the buffer to its last byte.
    private static let secret = "user=alice password=opensesame!!"
    private static let texts = [
        Array(secret.utf8), Array("hi".utf8), Array("adm\0in".utf8), [0x6F, 0x6B, 0xFF, 0x1B],
    ]

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "text-without-terminator",
        title: "received bytes are taken for a C string, which ends where some earlier text has left a 0",
        broken: { driver in try scenario(driver) { BrokenTextReader($0) } },
        fixed: { driver in
            try scenario(driver) { FramedConnection(LengthPrefixed.article, handler: Collector($0)) }
        })

    private static func scenario(
        _ driver: DriverKind, _ handler: @escaping @Sendable (Heard) -> any StreamHandler
    ) throws -> Observation {
        let heard = Heard()
        try play(texts.map(frame), to: .on(driver, chunk: capacity)) { handler(heard) }
        return Observation(
            happened: heard.messages != texts
                || heard.shown != [secret, "hi", "adm\\x00in", "ok\\xFF\\x1B"],
            lines: zip(texts, heard.shown).map { "\($0.count) bytes are shown as: \($1)" })
    }
}
