import CKernel
import Glibc

extension Socket {
    /// Posts a connect, and optionally the first bytes to send. It completes when the connection stands and all of
    /// those bytes have been handed over, or with an error.
    ///
    /// - Parameter firstData: The driver's until the completion.
    /// - Throws: EINVAL when the socket is not bound, EISCONN when it is connected, EBADF when it is closed.
    ///
    /// Win32 counterpart: `ConnectEx`.
    public func connect(
        _ operation: Overlapped, to address: Address,
        firstData: UnsafeRawBufferPointer = .init(start: nil, count: 0)
    ) throws(SystemError) {
        try post(
            operation, .connect, .outward, UnsafeMutableRawBufferPointer(mutating: firstData),
            extra: ConnectTarget(address)
        ) { state throws(SystemError) in
            guard !state.pointee.connected else {
                throw SystemError(EISCONN, attempted: "connect to \(address)")
            }
            guard state.pointee.bound, state.pointee.descriptor >= 0 else {
                throw SystemError(EINVAL, attempted: "connect with a socket that is not bound")
            }
        }
    }
}

final class ConnectTarget: Sendable {
    let address: Address
    init(_ address: Address) { self.address = address }
}

extension Overlapped {
    /// Three phases: ask for the connection, ask what came of it, send the first data.
    final func attemptConnect(_ descriptor: Int32) -> Attempt {
        switch phase {
        case 0:
            guard let target = extra as? ConnectTarget else { return .failed(EINVAL) }
            phase = 1
            if target.address.withSystem({ Glibc.connect(descriptor, $0, $1) }) == 0 {
                phase = 2
                return .more
            }
            // Interrupted or not: the attempt goes on by itself, and the socket becomes writable when it ends.
            return errno == EINPROGRESS || errno == EINTR ? .again : .failed(errno)
        case 1:
            var code: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length)
            if code != 0 { return .failed(code) }
            var peer = sockaddr_storage()
            length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let isConnected = withUnsafeMutablePointer(to: &peer) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) }
            }
            if isConnected != 0 { return .again }
            phase = 2
            return .more
        default:
            return attemptSend(descriptor)
        }
    }
}
