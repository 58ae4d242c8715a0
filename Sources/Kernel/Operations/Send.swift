import CKernel
import Glibc

extension Socket {
    /// Posts a send. It completes when every byte has been handed to the system, or with an error; sends leave in
    /// the order they were posted. A completed send has not been delivered: only the other side can tell that.
    ///
    /// - Parameter buffer: The driver's until the completion; the caller keeps it alive and unchanged.
    /// - Throws: ENOTCONN without a connection, ESHUTDOWN after the sending side was shut down, ECONNRESET when the
    ///   connection is known to be reset, EBADF when the socket is closed, EALREADY when the operation is pending.
    ///   Then nothing was posted.
    ///
    /// Win32 counterpart: `WSASend`. As there, a successful packet always carries the full length.
    public func send(_ operation: Overlapped, from buffer: UnsafeRawBufferPointer) throws(SystemError) {
        try send(operation, buffer, skipsPacket: false)
    }

    /// Posts a send that brings no packet when it succeeds inside this call. Over epoll most sends do, as long as the system
    /// has room for the bytes; over io_uring the ring tells later, with a packet.
    ///
    /// - Returns: Whether it has: then the operation is the caller's again, with its results. Otherwise it is pending, and
    ///   everything is as with `send`; so it is for an operation with an event or a routine.
    /// - Throws: as `send`.
    ///
    /// Win32 counterpart: `WSASend` on a socket with `FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`. There that is the socket's, for
    /// good, and holds for whatever is posted on it; and an event is set in any case.
    public func sendSkippingPacket(
        _ operation: Overlapped, from buffer: UnsafeRawBufferPointer
    ) throws(SystemError) -> Bool {
        try send(operation, buffer, skipsPacket: operation.event == nil && operation.routineTarget == nil)
    }

    @inline(__always) @discardableResult
    private func send(
        _ operation: Overlapped, _ buffer: UnsafeRawBufferPointer, skipsPacket: Bool
    ) throws(SystemError) -> Bool {
        // The driver only reads a send's memory.
        try post(
            operation, .send, .outward, UnsafeMutableRawBufferPointer(mutating: buffer),
            skipsPacket: skipsPacket
        ) { state throws(SystemError) in
            try state.requireConnection("send")
            if state.pointee.sendShutDown { throw SystemError(ESHUTDOWN, attempted: "send") }
        }
    }
}

extension Overlapped {
    @inline(__always)
    final func attemptSend(_ descriptor: Int32) -> Attempt {
        let left = buffer.count - progress
        if left == 0 { return .done(bytes: progress, drained: false) }
        let count = Glibc.send(
            descriptor, buffer.baseAddress! + progress, left, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        if count < 0 { return .failure(errno) }
        progress += count
        return progress == buffer.count ? .done(bytes: progress, drained: false) : .more
    }

    final func prepareSend(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ tag: UInt64) {
        // MSG_WAITALL: the kernel goes on after a short send by itself.
        ck_sqe_fill(
            entry, UInt8(IORING_OP_SEND.rawValue), descriptor, 0, buffer.baseAddress.map { $0 + progress },
            UInt32(min(buffer.count - progress, Attempt.longestRequest)),
            UInt32(MSG_NOSIGNAL | MSG_WAITALL), tag)
    }

    final func concludeSend(_ answer: Int32) -> Attempt {
        if answer < 0 { return .failed(-answer) }
        progress += Int(answer)
        return progress == buffer.count ? .done(bytes: progress, drained: false) : .more
    }
}
