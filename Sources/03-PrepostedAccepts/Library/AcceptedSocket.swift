import Glibc
import Kernel

/// A socket as an accept leaves it on Windows: it can send and receive, and knows nothing else of itself.
///
/// Windows fills an accepted socket with a connection and with nothing more. Until it has been told which listener it
/// came from, it may be sent to, received from and closed, and nothing else: no option, no address, no shutdown. Linux
/// has no such gap. This type refuses three of these calls, with the error that is seen there, so that code which
/// forgets the step fails here as well; the `socket` inside is Linux' own and refuses nothing (I3.7).
public struct AcceptedSocket: Sendable {
    /// The connection itself, for sending, receiving, associating and closing: these never need the step. Its options do,
    /// on Windows.
    public let socket: Socket
    /// Whether the socket has been told about its listener.
    public private(set) var isUpdated = false

    /// A socket that an accept has just filled.
    public init(_ socket: Socket) { self.socket = socket }

    /// Tells the socket about the listener that it came from.
    ///
    /// - Throws: ENOTCONN when no accept has filled the socket, EINVAL when `listener` does not listen where it came from.
    ///
    /// Win32 counterpart: `setsockopt` with `SO_UPDATE_ACCEPT_CONTEXT`.
    public mutating func updateContext(from listener: Socket) throws(SystemError) {
        guard socket.connectTime != nil else {
            throw SystemError(ENOTCONN, attempted: "update the context of a socket without a connection")
        }
        guard try socket.localAddress.port == listener.localAddress.port else {
            throw SystemError.invalid("update the context of a socket from another listener")
        }
        isUpdated = true
    }

    /// The same for a caller that has just had both from one accept, and needs no check.
    mutating func belongsToItsListener() { isUpdated = true }

    /// The client's address. - Throws: ENOTCONN before the update. Win32 counterpart: `getpeername`.
    public var remoteAddress: Address {
        get throws(SystemError) {
            try requireUpdate("ask for the peer's address")
            return try socket.remoteAddress
        }
    }

    /// This end's address. - Throws: ENOTCONN before the update. Win32 counterpart: `getsockname`.
    public var localAddress: Address {
        get throws(SystemError) {
            try requireUpdate("ask for the local address")
            return try socket.localAddress
        }
    }

    /// Says that this side will send no more. - Throws: ENOTCONN before the update.
    /// Win32 counterpart: `shutdown` with `SD_SEND`.
    public func shutDownSending() throws(SystemError) {
        try requireUpdate("shut down sending")
        try socket.shutDownSending()
    }

    private func requireUpdate(_ attempted: String) throws(SystemError) {
        guard isUpdated else { throw SystemError(ENOTCONN, attempted: attempted) }
    }
}
