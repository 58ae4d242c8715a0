import Glibc
import Kernel

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

    /// Sends a text that is short enough to leave at once. - Throws: ECONNRESET and the like.
    public func say(_ text: String) throws(SystemError) {
        let bytes = Array(text.utf8)
        let sent = try bytes.withUnsafeBufferPointer { bytes throws(SystemError) in
            try socket.sendNow(UnsafeRawBufferPointer(bytes))
        }
        guard sent == bytes.count else { throw SystemError(EAGAIN, attempted: "say \(text)") }
    }

    /// Waits for so many bytes.
    ///
    /// - Returns: nil when they had not come in time, or when the server ended the connection first.
    /// - Throws: ECONNRESET and the like.
    public func hear(_ count: Int, within patience: Duration = .seconds(10)) throws(SystemError) -> String? {
        let deadline = Deadline.after(patience)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
        defer { buffer.deallocate() }
        var heard = 0
        while heard < count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[heard...])
            guard let more = try socket.receiveNow(into: rest) else {
                guard waitUntilReadable(socket, until: deadline) else { return nil }
                continue
            }
            if more == 0 { return nil }
            heard += more
        }
        return String(decoding: buffer, as: UTF8.self)
    }

    /// Hangs up.
    public func leave() { socket.close() }
}

/// Waits until there is something to take from a socket. False when there was nothing in time.
func waitUntilReadable(_ socket: Socket, until deadline: Deadline) -> Bool {
    var wish = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
    while true {
        let milliseconds = Int32(clamping: deadline.remaining / 1_000_000 + (deadline.hasPassed ? 0 : 1))
        if poll(&wish, 1, milliseconds) > 0 { return true }
        if deadline.hasPassed { return false }
    }
}

/// Both ends of a connection: the server's, and a caller.
func connectedPair() throws(SystemError) -> (server: Socket, caller: Caller) {
    let listener = try Socket.listener(on: .loopback())
    let caller = try Caller(to: try listener.localAddress)
    guard waitUntilReadable(listener, until: .after(.seconds(10))), let server = try listener.acceptNow()
    else { throw SystemError(ETIMEDOUT, attempted: "accept the caller") }
    return (server, caller)
}
