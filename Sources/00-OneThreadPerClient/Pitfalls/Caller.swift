import Kernel
import Stage

/// A client that says something and hears what comes back, with a bound on every wait.
public final class Caller: Sendable {
    /// The caller's end of the connection.
    public let socket: Socket

    /// Connects. - Throws: ECONNREFUSED when nobody listens, EMFILE when no descriptor is left.
    public init(to address: Address) throws(SystemError) {
        socket = try Socket.connected(to: address)
    }

    /// Speaks over a connection that is there, or will be.
    public init(over socket: Socket) { self.socket = socket }

    /// Sends a text. - Throws: ECONNRESET and the like.
    public func say(_ text: String) throws(SystemError) { try socket.say(text) }

    /// Waits for so many bytes.
    ///
    /// - Returns: nil when they had not come in time, or when the server ended the connection first.
    /// - Throws: ECONNRESET and the like.
    public func hear(_ count: Int, within patience: Duration = .seconds(10)) throws(SystemError) -> String? {
        let bytes = try socket.hearBytes(count, within: patience)
        return bytes.count < count ? nil : String(decoding: bytes, as: UTF8.self)
    }

    /// Hangs up.
    public func leave() { socket.close() }
}

/// Both ends of a connection: the server's, and a caller.
func connectedPair() throws(SystemError) -> (server: Socket, caller: Caller) {
    let pair = try Pair()
    return (pair.server, Caller(over: pair.client))
}
