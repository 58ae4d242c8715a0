import CKernel
import Glibc

/// The calls that complete nothing: they do what they can now and return. Chapter 00 is made of them.
extension Socket {
    /// Takes the bytes that are there.
    ///
    /// - Returns: How many; 0 at the end of the stream; nil when there are none now (never when the socket blocks).
    /// - Throws: ECONNRESET and the like.
    ///
    /// Win32 counterpart: `recv`.
    public func receiveNow(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        try now("receive") { recv($0, buffer.baseAddress, buffer.count, 0) }
    }

    /// Gives the system as many bytes as it takes.
    ///
    /// - Returns: How many, perhaps fewer than offered; nil when it takes none now.
    /// - Throws: EPIPE, ECONNRESET and the like; never a signal.
    ///
    /// Win32 counterpart: `send`.
    public func sendNow(_ buffer: UnsafeRawBufferPointer) throws(SystemError) -> Int? {
        try now("send") { Glibc.send($0, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL)) }
    }

    /// Takes a connection that waits.
    ///
    /// - Returns: nil when none waits now (never when the socket blocks).
    /// - Throws: EMFILE when no descriptor is left, EINVAL when the socket does not listen.
    ///
    /// Win32 counterpart: `accept`.
    public func acceptNow() throws(SystemError) -> Socket? {
        let flags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        guard let accepted = try now("accept", { Int(ck_accept4($0, nil, nil, flags)) }) else { return nil }
        return Socket(connectedDescriptor: Int32(accepted))
    }

    /// Connects, and waits until the connection stands.
    ///
    /// - Throws: ECONNREFUSED when no socket listens there, EADDRNOTAVAIL when no local port is left.
    ///
    /// Win32 counterpart: `connect`.
    public static func connected(to address: Address, from local: Address? = nil) throws(SystemError)
        -> Socket
    {
        let socket: Socket
        if let local { socket = try Socket(boundTo: local) } else { socket = try unbound(like: address) }
        let descriptor = socket.descriptor
        if address.withSystem({ Glibc.connect(descriptor, $0, $1) }) != 0 {
            guard errno == EINPROGRESS else { throw .last("connect to \(address)") }
            var wish = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            _ = try check("connect to \(address)") { poll(&wish, 1, -1) }
            var code: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length)
            if code != 0 { throw SystemError(code, attempted: "connect to \(address)") }
        }
        socket.locked {
            $0.pointee.bound = true
            $0.pointee.connected = true
        }
        return socket
    }

    /// Says that this side will send no more. What was posted before is lost; a disconnect waits for it.
    /// Queues no packet. Win32 counterpart: `shutdown` with `SD_SEND`; there what was posted before still goes out.
    ///
    /// - Throws: ECONNRESET when the connection was reset, ENOTCONN when there never was one.
    public func shutDownSending() throws(SystemError) {
        try locked { state throws(SystemError) in
            do throws(SystemError) {
                _ = try check("shut down sending") { shutdown(state.pointee.descriptor, Int32(SHUT_WR)) }
            } catch {
                // The system calls both of them "not connected".
                let isReset = error.code == ENOTCONN && state.pointee.connected && !state.pointee.sendShutDown
                throw isReset ? SystemError(ECONNRESET, attempted: error.attempted) : error
            }
            state.pointee.sendShutDown = true
        }
    }

    /// Whether the plain calls wait until they can do something. Sockets are made not to.
    public func setBlocking(_ on: Bool) throws(SystemError) {
        let descriptor = descriptor
        let flags = try check("ask for flags") { ck_fcntl(descriptor, F_GETFL, 0) }
        _ = try check("set flags") {
            ck_fcntl(descriptor, F_SETFL, on ? flags & ~O_NONBLOCK : flags | O_NONBLOCK)
        }
    }

    /// Ends the connection, or the listening, without closing the socket: a thread that waits in a plain call on it
    /// returns, and a poller tells of it. From any thread. It is what stops a thread that blocks.
    ///
    /// Closing would leave the call waiting, and give its descriptor's number to another file. On Windows `closesocket`
    /// must not run beside another call on the socket either. Win32 counterpart: `shutdown` with `SD_BOTH`, or
    /// `CancelIoEx`.
    public func interrupt() {
        // Under the lock, so that the number still belongs to this socket. One that is not connected is no error.
        locked { if $0.pointee.descriptor >= 0 { _ = shutdown($0.pointee.descriptor, Int32(SHUT_RDWR)) } }
    }

    private func now(_ attempted: String, _ call: (Int32) -> Int) throws(SystemError) -> Int? {
        let descriptor = descriptor
        while true {
            let count = call(descriptor)
            if count >= 0 { return count }
            switch errno {
            case EINTR: continue
            case EAGAIN: return nil
            default: throw .last(attempted)
            }
        }
    }
}
