import CKernel
import Glibc

extension Socket {
    /// Posts a connect, and optionally the first bytes to send. It completes when the connection stands and all of
    /// those bytes have been handed over, or with an error.
    ///
    /// - Parameter firstData: The driver's until the completion.
    /// - Throws: EINVAL when the socket is not bound or listens, EISCONN when it is connected, EALREADY when it is being
    ///   connected, EBADF when it is closed.
    ///
    /// Win32 counterpart: `ConnectEx`.
    public func connect(
        _ operation: Overlapped, to address: Address,
        firstData: UnsafeRawBufferPointer = .init(start: nil, count: 0)
    ) throws(SystemError) {
        try post(
            operation, .connect, .outward, UnsafeMutableRawBufferPointer(mutating: firstData),
            plan: ConnectTarget(address)
        ) { state throws(SystemError) in
            guard !state.pointee.connected else {
                throw SystemError(EISCONN, attempted: "connect to \(address)")
            }
            guard state.pointee.bound, !state.pointee.listening, state.pointee.descriptor >= 0 else {
                throw SystemError(EINVAL, attempted: "connect with a socket that is not bound, or listens")
            }
            // Nothing else can be pending there without a connection.
            guard state.lane(.outward).pointee.pending.head == nil else {
                throw SystemError(EALREADY, attempted: "connect a socket that is connecting")
            }
        }
    }
}

final class ConnectTarget: Sendable {
    let address: Address
    init(_ address: Address) { self.address = address }
}

extension Overlapped {
    /// Two phases: ask for the connection until it stands, and send the first data.
    final func attemptConnect(_ descriptor: Int32) -> Attempt {
        switch phase {
        case 0:
            guard let target = rare?.plan as? ConnectTarget else { return .failed(EINVAL) }
            if target.address.withSystem({ Glibc.connect(descriptor, $0, $1) }) == 0 {
                phase = 1
                return .more
            }
            // Interrupted or not: the attempt goes on by itself, and the socket becomes writable when it ends. Asked
            // again then, the call tells what came of it, and leaves a socket that may be connected again.
            return [EINPROGRESS, EALREADY, EINTR].contains(errno) ? .again : .failed(errno)
        default:
            return attemptSend(descriptor)
        }
    }
}
