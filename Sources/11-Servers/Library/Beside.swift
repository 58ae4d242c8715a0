import Contexts
import Framing
import Kernel
import Reordering

/// A connection of the program's own kind, beside the sessions: it has a place, and gives it back.
final class Beside<Codec: FrameCodec>: FrameHandler {
    private let inner: any FrameHandler<Codec>
    private let run: Run
    private let address: Address

    init(_ inner: any FrameHandler<Codec>, _ run: Run, _ address: Address) {
        (self.inner, self.run, self.address) = (inner, run, address)
    }

    var messageTag: UInt8? { inner.messageTag }
    func opened(_ connection: FramedConnection<Codec>) { inner.opened(connection) }
    func received(_ message: RawSpan, on connection: FramedConnection<Codec>) {
        inner.received(message, on: connection)
    }
    func passed(_ bytes: Range<Int>, of chunk: Chunk, on connection: FramedConnection<Codec>) {
        inner.passed(bytes, of: chunk, on: connection)
    }
    func failed(_ connection: FramedConnection<Codec>, _ error: FrameError) {
        inner.failed(connection, error)
    }
    func ended(_ connection: FramedConnection<Codec>) { inner.ended(connection) }
    func sent(_ token: Int, on connection: FramedConnection<Codec>) { inner.sent(token, on: connection) }
    func tick(_ now: UInt64, on connection: FramedConnection<Codec>) { inner.tick(now, on: connection) }
    func closed(_ connection: FramedConnection<Codec>, _ reason: CloseReason) {
        run.gate.leave(address, .closed(reason))
        inner.closed(connection, reason)
    }
}
