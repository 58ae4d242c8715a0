import CKernel
import Glibc

/// A TCP socket. It never blocks, unless `isBlocking` is set, and no child process inherits it.
///
/// Win32 counterpart: `SOCKET`, from `WSASocket` with `WSA_FLAG_OVERLAPPED`.
public final class Socket: Handle, @unchecked Sendable {
    /// A fresh socket without a descriptor: for an accept to put a connection into.
    public init() { super.init(descriptor: -1, kind: .socket) }

    init(connectedDescriptor descriptor: Int32) {
        super.init(descriptor: descriptor, kind: .socket)
        locked {
            $0.pointee.bound = true
            $0.pointee.connected = true
        }
    }

    private override init(descriptor: Int32, kind: HandleKind = .socket) {
        super.init(descriptor: descriptor, kind: kind)
    }

    /// A socket that is bound to an address, to connect from. One that is bound to the loopback reaches this machine only;
    /// from `Address.any()` or `Address.any6()` every machine can be reached. With port 0 the system chooses one: at once,
    /// or, for an address that is none in particular, when the socket connects. Till then its `localAddress` has port 0,
    /// and then one port serves as many connections as there are other ends.
    ///
    /// - Throws: EADDRINUSE, EACCES from binding; EADDRNOTAVAIL when it is no address of this machine, or no port is left;
    ///   EMFILE when no descriptor is left.
    public convenience init(boundTo address: Address) throws(SystemError) {
        self.init(descriptor: try Socket.open(address))
        if address.isAny, address.port == 0 {
            try set(Int32(IPPROTO_IP), Socket.chooseThePortLater, 1)
        }
        try bind(to: address)
    }

    /// A socket that is neither bound nor connected.
    ///
    /// - Throws: EMFILE when no descriptor is left.
    public static func unbound(like address: Address = .loopback()) throws(SystemError) -> Socket {
        Socket(descriptor: try open(address))
    }

    /// A socket that listens.
    ///
    /// - Parameters:
    ///   - address: Port 0 takes any free one; read it back with `localAddress`.
    ///   - isShared: Whether other sockets that say the same may listen at the same address. The system then chooses one of
    ///     them for each client, by a hash of both addresses. (Windows' `SO_REUSEADDR` is something else.)
    ///   - backlog: Connections that wait to be accepted, at most; the system may have a lower limit (`somaxconn`). Beyond
    ///     it a client's request is dropped, and its system tries again. (Windows refuses it.)
    /// - Throws: EADDRINUSE when another socket listens there; EADDRNOTAVAIL when it is no address of this machine, or no port is
    ///   left; EACCES; EMFILE when no descriptor is left.
    public static func listener(
        on address: Address, isShared: Bool = false, backlog: Int = 4096
    ) throws(SystemError) -> Socket {
        let socket = Socket(descriptor: try open(address), kind: .listener)
        // So that a server can be started again while its old connections are still winding down. On Windows this option
        // lets others take the port; there a server sets `SO_EXCLUSIVEADDRUSE`.
        try socket.set(SOL_SOCKET, SO_REUSEADDR, 1)
        if isShared { try socket.set(SOL_SOCKET, SO_REUSEPORT, 1) }
        try socket.bind(to: address)
        let descriptor = socket.state.pointee.descriptor
        _ = try check("listen on \(address)") { Glibc.listen(descriptor, Int32(clamping: backlog)) }
        socket.locked { $0.pointee.listening = true }
        return socket
    }

    private static func open(_ address: Address) throws(SystemError) -> Int32 {
        let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        return try check("create a socket") { Glibc.socket(address.domain, type, 0) }
    }

    /// Win32 counterpart: `bind`.
    package func bind(to address: Address) throws(SystemError) {
        let descriptor = descriptor
        do throws(SystemError) {
            _ = try check("bind \(address)") { address.withSystem { Glibc.bind(descriptor, $0, $1) } }
        } catch {
            // Port 0 asks for any port, so none is left. A connect says the same with another number.
            let isNoneLeft = error.code == EADDRINUSE && address.port == 0
            throw isNoneLeft ? SystemError(EADDRNOTAVAIL, attempted: error.attempted) : error
        }
        locked { $0.pointee.bound = true }
    }

    /// `IP_BIND_ADDRESS_NO_PORT`, for IPv6, too.
    private static let chooseThePortLater: Int32 = 24

    // MARK: Addresses and options

    /// The address of this end. - Throws: EBADF when closed.
    public var localAddress: Address {
        get throws(SystemError) {
            try Address.ask("ask for the local address", descriptor) { getsockname($0, $1, $2) }
        }
    }

    /// The address of the other end. - Throws: ENOTCONN without a connection.
    public var remoteAddress: Address {
        get throws(SystemError) {
            try Address.ask("ask for the peer's address", descriptor) { getpeername($0, $1, $2) }
        }
    }

    /// Small messages leave at once rather than wait to be joined by more. Win32: `TCP_NODELAY`; there an accepted socket
    /// takes no option before `SO_UPDATE_ACCEPT_CONTEXT`.
    public func setNoDelay(_ on: Bool = true) throws(SystemError) {
        try set(Int32(IPPROTO_TCP), TCP_NODELAY, on ? 1 : 0)
    }

    /// Bytes that the system keeps for sending and receiving; it may take more.
    public func setBufferSizes(send: Int? = nil, receive: Int? = nil) throws(SystemError) {
        if let send { try set(SOL_SOCKET, SO_SNDBUF, Int32(clamping: send)) }
        if let receive { try set(SOL_SOCKET, SO_RCVBUF, Int32(clamping: receive)) }
    }

    /// Closing will throw away what was not sent and tell the other side with a reset. Win32: linger 0.
    public func setAbortiveClose() throws(SystemError) {
        var value = linger(l_onoff: 1, l_linger: 0)
        let descriptor = descriptor
        _ = try check("set linger") {
            setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
        }
    }

    /// Sets an option of the system whose value is one number.
    public func set(_ level: Int32, _ option: Int32, _ value: Int32) throws(SystemError) {
        var value = value
        let descriptor = descriptor
        _ = try check("set option \(option)") {
            setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
        }
    }

    /// How many bytes the other side's system has taken since the connection stands: so it can be told whether bytes move
    /// while a large send is pending. Nil when closed, or where the system does not count them.
    /// Win32 counterpart: `SIO_TCP_INFO`.
    public var bytesAcknowledged: UInt64? {
        // `tcp_info` as the kernel has it since Linux 4.1: `tcpi_bytes_acked` is its sixteenth word of 64 bits.
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 16) { words in
            var length = socklen_t(16 * MemoryLayout<UInt64>.size)
            let result = lendingDescriptor {
                getsockopt($0, Int32(IPPROTO_TCP), TCP_INFO, words.baseAddress!, &length)
            }
            return result == 0 && length == 16 * MemoryLayout<UInt64>.size ? words[15] : nil
        }
    }

    // MARK: A connection's way

    /// The listener whose accept has claimed this socket, until it has a client. Guarded by this socket's lock.
    private var claimant: Socket?

    /// For an accept: takes the fresh socket, so that no other accept gets it too.
    func claim(for listener: Socket) -> Bool {
        locked { state in
            guard state.pointee.descriptor < 0, !state.pointee.closed, !state.pointee.bound else {
                return false
            }
            state.pointee.bound = true
            claimant = listener
            return true
        }
    }

    /// An accept was not posted after all, or came to nothing: the socket is fresh again.
    func disclaim() {
        let listener = locked { state in
            if state.pointee.descriptor < 0 { state.pointee.bound = false }
            return claimant.take()
        }
        // Not let go under the lock: it may be the last reference.
        withExtendedLifetime(listener) {}
    }

    /// This socket was closed: the accept that would have filled it is cancelled.
    func giveUpAccept(_ completed: inout CompletionList) {
        guard let listener = locked({ _ in claimant.take() }) else { return }
        listener.locked { _ in
            _ = listener.cancelPending(&completed) { $0.operation == .accept && $0.rare?.other === self }
        }
    }

    /// Under this socket's lock: a connection for a claimed socket. False when its accept was cancelled, or the
    /// socket was closed meanwhile; then the connection is closed, too.
    func adopt(_ descriptor: Int32, unless isUnwanted: Bool) -> Bool {
        state.assertHeld()
        guard !state.pointee.closed, !isUnwanted else {
            Glibc.close(descriptor)
            return false
        }
        state.pointee.descriptor = descriptor
        state.pointee.connected = true
        claimant = nil
        connectedSince = monotonicNanoseconds()
        return true
    }

    /// The driver of this socket's own port, while an accept waits here for first data in its listener's driver. Guarded
    /// by this socket's lock.
    var home: Driver?

    /// Under this socket's lock: an accept has its first data, or will not get any.
    func comeHome() {
        state.assertHeld()
        guard let driver = home.take() else { return }
        // One that cannot take it leaves the connection where it is: its operations complete all the same.
        try? state.move(to: driver)
    }

    private var connectedSince: UInt64 = 0

    /// How long ago an accept took the connection, in whole seconds as on Windows or finer; nil without one.
    /// Win32 counterpart: `SO_CONNECT_TIME`.
    public var connectTime: Duration? {
        locked {
            guard $0.pointee.connected, connectedSince != 0 else { return nil }
            return .nanoseconds(Int64(monotonicNanoseconds() - connectedSince))
        }
    }
}

extension UnsafeMutablePointer where Pointee == HandleState {
    /// What a receive or send needs.
    @inline(__always)
    func requireConnection(_ attempted: StaticString) throws(SystemError) {
        assertHeld()
        if pointee.reset { throw SystemError(ECONNRESET, attempted: "\(attempted)") }
        if !pointee.connected { throw SystemError(ENOTCONN, attempted: "\(attempted)") }
    }

    /// What a failure tells of the connection. Returns the number to report: there is one for each fact, while the system
    /// has two for a reset, according to which call noticed it first.
    func note(_ code: Int32) -> Int32 {
        assertHeld()
        guard pointee.kind == .socket else { return code }
        if code == EPIPE, pointee.sendShutDown { return ESHUTDOWN }
        guard code == ECONNRESET || code == EPIPE else { return code }
        pointee.reset = true
        return ECONNRESET
    }

    /// When a receive has got 0 bytes: whether that was the end of the stream, or a reset that a send has noticed first. The
    /// system tells of a reset only once, and gives 0 bytes to every later call.
    func wasReset(_ room: Int, _ descriptor: Int32) -> Bool {
        assertHeld()
        if pointee.reset { return true }
        guard room > 0, descriptor >= 0, !pointee.sendShutDown else { return false }
        // After the other side's end alone, the connection would still be there to send on.
        var connection: UInt8 = 0
        var length = socklen_t(1)
        getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_INFO, &connection, &length)
        return Int(connection) == TCP_CLOSE
    }

    /// When a disconnect for reuse is over: the socket is as new.
    func makeFresh() {
        assertHeld()
        let descriptor = pointee.descriptor
        if pointee.registered { pointee.driver?.detach(self) }
        pointee.descriptor = -1
        if descriptor >= 0 { Glibc.close(descriptor) }
        pointee.bound = false
        pointee.connected = false
        pointee.sendShutDown = false
        pointee.reset = false
        lane(.inward).pointee.ready = false
        lane(.inward).pointee.ended = false
        lane(.outward).pointee.ready = true
    }
}
