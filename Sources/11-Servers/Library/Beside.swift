import Contexts
import Kernel
import Reordering

/// A connection of the program's own kind, beside the sessions: it has a place, and gives it back.
final class Beside: StreamHandler {
    private let inner: any StreamHandler
    private let run: Run
    private let address: Address

    init(_ inner: any StreamHandler, _ run: Run, _ address: Address) {
        (self.inner, self.run, self.address) = (inner, run, address)
    }

    func opened(_ connection: StreamConnection) { inner.opened(connection) }
    func received(_ chunk: Chunk, on connection: StreamConnection) { inner.received(chunk, on: connection) }
    func ended(_ connection: StreamConnection) { inner.ended(connection) }
    func sent(_ token: Int, on connection: StreamConnection) { inner.sent(token, on: connection) }
    func tick(_ now: UInt64, on connection: StreamConnection) { inner.tick(now, on: connection) }
    func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        // First the place, then the word: who hears it may connect again at once.
        run.gate.leave(address, .closed(reason))
        inner.closed(connection, reason)
    }
}
