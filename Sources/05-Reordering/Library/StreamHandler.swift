import Contexts

/// What a program does with a connection's stream. One object for each connection.
///
/// All calls to one handler come one after the other, whatever the number of workers and of pending reads, and no lock is
/// held meanwhile: it may send, close, keep chunks, and block if it says so to the port. (I5.2)
public protocol StreamHandler: AnyObject, Sendable {
    /// The connection stands. The first call, and before any byte.
    func opened(_ connection: StreamConnection)
    /// The next bytes of the stream. They are the handler's until it returns; to have them longer, `keep` them.
    func received(_ chunk: Chunk, on connection: StreamConnection)
    /// The other side sends no more; everything that it sent has been received. Without a word from the handler, the
    /// connection finishes: what is still to be sent is sent, and then it closes.
    func ended(_ connection: StreamConnection)
    /// A send or transmit that was given this token has been handed to the system, whole. With several workers, of two
    /// sends the later one may be told first.
    func sent(_ token: Int, on connection: StreamConnection)
    /// The connection is over. The last call, exactly one, and nothing is pending any more. (I5.7)
    func closed(_ connection: StreamConnection, _ reason: CloseReason)
    /// Time has passed, for what has limits: nanoseconds on the monotonic clock. The one call that does not keep to the
    /// order of the others: it comes from the thread that calls the hub's `tick`, at any moment, and beside them.
    func tick(_ now: UInt64, on connection: StreamConnection)
}

extension StreamHandler {
    /// Does nothing.
    public func opened(_ connection: StreamConnection) {}
    /// Finishes the connection.
    public func ended(_ connection: StreamConnection) { connection.finish() }
    /// Does nothing.
    public func sent(_ token: Int, on connection: StreamConnection) {}
    /// Does nothing.
    public func closed(_ connection: StreamConnection, _ reason: CloseReason) {}
    /// Does nothing.
    public func tick(_ now: UInt64, on connection: StreamConnection) {}
}

/// Gives every client its own bytes back, without copying them: the stage's handler.
public final class Echo: StreamHandler {
    /// An echo.
    public init() {}

    /// Sends the chunk itself back.
    public func received(_ chunk: Chunk, on connection: StreamConnection) { try? connection.send(chunk) }
}
