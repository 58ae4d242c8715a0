import CKernel
import Glibc

extension Socket {
    /// Posts a receive. It completes when there are bytes, with as many as there are up to the buffer's size; with
    /// 0 bytes at the end of the stream; or with an error. Receives pending on one socket are filled in the order
    /// they were posted.
    ///
    /// An empty buffer asks for a notice only: it completes with 0 bytes when data or the end of the stream can be
    /// read, and takes nothing.
    ///
    /// - Parameter buffer: The driver's until the completion; the caller keeps it alive and does not touch it.
    /// - Throws: ENOTCONN without a connection or behind a disconnect for reuse, ECONNRESET when the connection is known to be reset, EBADF when the
    ///   socket is closed, EALREADY when the operation is pending. Then nothing was posted.
    ///
    /// Win32 counterpart: `WSARecv`, which may wait a little for more without `MSG_PUSH_IMMEDIATE`.
    public func receive(
        _ operation: Overlapped, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) {
        try post(operation, .receive, .inward, buffer) { state throws(SystemError) in
            try state.requireConnection("receive")
            if state.pointee.isBecomingFresh { throw SystemError(ENOTCONN, attempted: "receive") }
        }
    }
}

extension Socket {
    /// Takes the bytes that are there, as a receive that never stays pending. It knows what the operations on this socket have
    /// learned: of a reset that one of them was told of, the system tells a plain call no more than 0 bytes.
    ///
    /// - Returns: How many; 0 at the end of the stream; nil when there are none now.
    /// - Throws: ECONNRESET and the like.
    public func tryReceive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        do throws(SystemError) {
            let count = try receiveNow(into: buffer)
            if count == 0, locked({ $0.wasReset(buffer.count, $0.pointee.descriptor) }) {
                throw SystemError(ECONNRESET, attempted: "receive")
            }
            return count
        } catch {
            throw SystemError(locked { $0.note(error.code) }, attempted: error.attempted)
        }
    }
}

extension Overlapped {
    @inline(__always)
    final func attemptReceive(_ descriptor: Int32) -> Attempt {
        // The buffer is the caller's promise: alive and untouched until the completion.
        guard buffer.count > 0 else { return attemptNotice(descriptor) }
        let count = recv(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
        if count < 0 { return .failure(errno) }
        // The end of the stream stays readable.
        return .done(bytes: count, drained: count > 0 && count < buffer.count)
    }

    /// Looks without taking: a zero-byte receive.
    final func attemptNotice(_ descriptor: Int32) -> Attempt {
        var byte: UInt8 = 0
        let count = recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT | MSG_PEEK))
        return count < 0 ? .failure(errno) : .done(bytes: 0, drained: false)
    }

    final func prepareReceive(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ tag: UInt64)
    {
        if buffer.count == 0 {
            preparePoll(entry, descriptor, UInt32(POLLIN) | EPOLLRDHUP.rawValue, tag)
        } else {
            ck_sqe_fill(
                entry, UInt8(IORING_OP_RECV.rawValue), descriptor, 0, buffer.baseAddress,
                UInt32(min(buffer.count, Attempt.longestRequest)), 0, tag)
        }
    }

    final func concludeReceive(_ answer: Int32, _ descriptor: Int32) -> Attempt {
        if answer < 0 { return .failed(-answer) }
        if buffer.count > 0 { return .done(bytes: Int(answer), drained: false) }
        // A poll also answers for an error, and for an urgent byte with nothing behind it: a look tells which, unless the
        // socket has been closed meanwhile.
        return descriptor >= 0 ? attemptNotice(descriptor) : .done(bytes: 0, drained: false)
    }
}
