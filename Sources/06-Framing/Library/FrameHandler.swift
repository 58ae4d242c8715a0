import Contexts
import Reordering

/// What a program does with the messages of a connection. One object for each connection.
///
/// All calls come one after the other, in the order of the stream, whatever the number of workers. (I6.5) No lock is held
/// meanwhile. What is lent is lent for the call.
public protocol FrameHandler<Codec>: AnyObject, Sendable {
    /// How the messages are framed.
    associatedtype Codec: FrameCodec

    /// A byte that goes in front of each message that is sent, and that comes in front of each that is received. For a
    /// handler that has the program's own inside and messages of its own beside its: with other bytes in front. Asked
    /// once, before `opened`. Nil for all others: their messages are on the wire as they are.
    var messageTag: UInt8? { get }

    /// The connection stands. The first call.
    func opened(_ connection: FramedConnection<Codec>)
    /// The next message.
    func received(_ message: RawSpan, on connection: FramedConnection<Codec>)
    /// The next bytes of those that ``FramedConnection/passThrough(_:)`` has asked for: these of the chunk's contents.
    /// To have them longer than the call, keep the chunk.
    func passed(_ bytes: Range<Int>, of chunk: Chunk, on connection: FramedConnection<Codec>)
    /// The stream is not what it should be, or has ended within a frame. No message comes after this.
    ///
    /// Without a word from the handler the connection finishes: what is to be sent is sent, what still comes is thrown
    /// away, up to a limit. A server closes it after a while in any case.
    func failed(_ connection: FramedConnection<Codec>, _ error: FrameError)
    /// The other side sends no more, and its last frame is whole. Without a word from the handler the connection
    /// finishes.
    func ended(_ connection: FramedConnection<Codec>)
    /// A send that was given this token has been handed to the system, whole. Negative tokens are the book's own.
    func sent(_ token: Int, on connection: FramedConnection<Codec>)
    /// The connection is over. The last call, exactly one.
    func closed(_ connection: FramedConnection<Codec>, _ reason: CloseReason)
    /// Time has passed, for what has limits: nanoseconds on the monotonic clock. The one call that does not keep to the
    /// order of the others: it comes from the service's clock, at any moment from `opened` on, and beside them.
    func tick(_ now: UInt64, on connection: FramedConnection<Codec>)
}

extension FrameHandler {
    /// None.
    public var messageTag: UInt8? { nil }
    /// Does nothing.
    public func opened(_ connection: FramedConnection<Codec>) {}
    /// Does nothing.
    public func passed(_ bytes: Range<Int>, of chunk: Chunk, on connection: FramedConnection<Codec>) {}
    /// Finishes the connection.
    public func failed(_ connection: FramedConnection<Codec>, _ error: FrameError) { connection.finish() }
    /// Finishes the connection.
    public func ended(_ connection: FramedConnection<Codec>) { connection.finish() }
    /// Does nothing.
    public func sent(_ token: Int, on connection: FramedConnection<Codec>) {}
    /// Does nothing.
    public func closed(_ connection: FramedConnection<Codec>, _ reason: CloseReason) {}
    /// Does nothing.
    public func tick(_ now: UInt64, on connection: FramedConnection<Codec>) {}
}
