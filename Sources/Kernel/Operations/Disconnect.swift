import CKernel
import Glibc

extension Socket {
    /// Posts a disconnect: after everything posted before it has been sent, the other side is told that no more
    /// will come. Completes with 0 bytes.
    ///
    /// - Parameter reuse: Also waits for the other side's end, throws away what still comes until then, and makes
    ///   the socket fresh again: it can be given to another accept.
    /// - Throws: ENOTCONN without a connection, EBADF when the socket is closed, EALREADY when the operation is
    ///   pending.
    ///
    /// Win32 counterpart: `DisconnectEx`, with `TF_REUSE_SOCKET`.
    public func disconnect(_ operation: Overlapped, reuse: Bool = false) throws(SystemError) {
        try post(operation, .disconnect, .outward, plan: reuse ? Reuse.wanted : nil) {
            state throws(SystemError) in
            guard state.pointee.connected, !state.pointee.isBecomingFresh else {
                throw SystemError(ENOTCONN, attempted: "disconnect")
            }
        } accepted: { state in
            state.pointee.sendShutDown = true
            state.pointee.isBecomingFresh = reuse
        }
    }
}

final class Reuse: Sendable {
    static let wanted = Reuse()
}

extension Overlapped {
    /// Whether a second half follows the shutdown: waiting for the other side's end.
    final var wantsReuse: Bool { operation == .disconnect && rare?.plan === Reuse.wanted }

    final func attemptDisconnect(_ descriptor: Int32) -> Attempt {
        if shutdown(descriptor, Int32(SHUT_WR)) != 0, errno != ENOTCONN { return .failed(errno) }
        return .done(bytes: 0, drained: false)
    }

    /// Takes what still comes, until the end. It waits in the inward lane, behind the receives posted before it.
    final func attemptDrain(_ descriptor: Int32) -> Attempt {
        // A stream's bytes are thrown away where they are, without a buffer.
        let count = recv(descriptor, nil, Overlapped.drainPiece, Int32(MSG_DONTWAIT | MSG_TRUNC))
        if count > 0 { return .more }
        // A connection that was reset has ended, too.
        if count == 0 || errno == ECONNRESET { return .done(bytes: 0, drained: false) }
        return .failure(errno)
    }

    /// Bytes that one step throws away, at most.
    private static let drainPiece = 4 << 10
}
