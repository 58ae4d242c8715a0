import CKernel
import Glibc

extension Socket {
    /// Posts a file, with optional bytes before and after it, as one send. It completes with the number of all bytes
    /// handed over. It takes its turn among the sends of this socket. The file is read from `operation.offset`.
    /// What the system has in its memory may be sent before this returns; the completion comes the same way all the same.
    ///
    /// - Parameters:
    ///   - file: What to send; nil sends only head and tail.
    ///   - length: Bytes of the file; 0 means all from the offset on. A file that turns out to be shorter makes the
    ///     operation fail with `SystemError.endOfFile` after what there was.
    ///   - head, tail: The driver's until the completion.
    ///   The file may be closed meanwhile: then the operation fails with EBADF, where it is.
    /// - Throws: ENOTCONN, ESHUTDOWN, ECONNRESET, EBADF, EALREADY as for `send`; EINVAL when the offset lies outside
    ///   the file or more than `transmitLimit` bytes are asked for.
    ///
    /// Win32 counterpart: `TransmitFile`.
    public func transmit(
        _ operation: Overlapped, _ file: File?, length: Int = 0,
        head: UnsafeRawBufferPointer = .init(start: nil, count: 0),
        tail: UnsafeRawBufferPointer = .init(start: nil, count: 0)
    ) throws(SystemError) {
        var part = 0
        if let file {
            let size = try file.size
            guard operation.offset >= 0, operation.offset <= size else {
                throw SystemError(EINVAL, attempted: "transmit from outside the file")
            }
            part = length == 0 ? Int(size - operation.offset) : length
        }
        guard part >= 0, part <= Socket.transmitLimit - head.count - tail.count else {
            throw SystemError(EINVAL, attempted: "transmit more than \(Socket.transmitLimit) bytes at once")
        }
        let plan = TransmitPlan(file: part, head: head, tail: tail)
        try post(operation, .transmit, .outward, other: file, plan: plan) { state throws(SystemError) in
            try state.requireConnection("transmit")
            if state.pointee.sendShutDown { throw SystemError(ESHUTDOWN, attempted: "transmit") }
        }
    }

    /// The most bytes, head and tail included, that one transmit moves.
    public static let transmitLimit = Int(Int32.max) - 1
}

final class TransmitPlan: @unchecked Sendable {
    let file: Int
    let head: UnsafeRawBufferPointer
    let tail: UnsafeRawBufferPointer

    init(file: Int, head: UnsafeRawBufferPointer, tail: UnsafeRawBufferPointer) {
        self.file = file
        self.head = head
        self.tail = tail
    }
}

extension Overlapped {
    /// The next piece: of the head, of the file, or of the tail.
    final func attemptTransmit(_ descriptor: Int32) -> Attempt {
        guard let plan = rare?.plan as? TransmitPlan else { return .failed(EINVAL) }
        let total = plan.head.count + plan.file + plan.tail.count
        if progress == total { return .done(bytes: total, drained: false) }
        let inFile = progress - plan.head.count
        let count: Int
        if inFile < 0 {
            count = piece(plan.head, from: progress, descriptor)
        } else if inFile < plan.file {
            guard let file = rare?.other else { return .failed(EBADF) }
            var position = off_t(offset) + inFile
            // Lent, since another thread may close the file meanwhile.
            count = file.lendingDescriptor { source in
                withoutBrokenPipeSignal {
                    sendfile(descriptor, source, &position, min(plan.file - inFile, Overlapped.transmitPiece))
                }
            }
            if count == 0 { return .failed(SystemError.endOfFile) }
        } else {
            count = piece(plan.tail, from: inFile - plan.file, descriptor)
        }
        if count < 0 { return .failure(errno) }
        progress += count
        return progress == total ? .done(bytes: total, drained: false) : .more
    }

    /// Bytes that one call sends of a file, so that a cancel is seen before all of a large one has been sent.
    private static let transmitPiece = 1 << 20

    /// Whether the next piece waits for no disk, as far as a sample can tell: a byte of each part of it is in the system's
    /// memory. Then it takes no longer than a send.
    final var isNextPieceInMemory: Bool {
        guard let plan = rare?.plan as? TransmitPlan else { return true }
        let inFile = progress - plan.head.count
        guard inFile >= 0, inFile < plan.file else { return true }
        let start = Int(offset) + inFile
        // Such a sum may be more than any file has bytes.
        let end = start + min(plan.file - inFile, Overlapped.transmitPiece, .max - start)
        return rare?.other?.lendingDescriptor { source in
            var byte: UInt8 = 0
            return stride(from: start, to: end, by: Overlapped.sampleDistance).allSatisfy {
                ck_read_from_memory(source, &byte, 1, Int64($0)) == 1
            } && ck_read_from_memory(source, &byte, 1, Int64(end - 1)) == 1
        } ?? true
    }

    /// The system mostly reads a file ahead in pieces of this size. A smaller hole between two samples is not seen, and the
    /// call waits for it.
    private static let sampleDistance = 128 << 10

    private final func piece(_ bytes: UnsafeRawBufferPointer, from start: Int, _ descriptor: Int32) -> Int {
        Glibc.send(
            descriptor, bytes.baseAddress! + start, bytes.count - start,
            Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
}

/// Sendfile knows no MSG_NOSIGNAL: a peer that has gone must be an error here, not a signal.
private func withoutBrokenPipeSignal(_ call: () -> Int) -> Int {
    var pipe = sigset_t()
    var before = sigset_t()
    sigemptyset(&pipe)
    sigaddset(&pipe, SIGPIPE)
    pthread_sigmask(SIG_BLOCK, &pipe, &before)
    let result = call()
    let code = errno
    // One that came is taken away, or it would come now. It comes with a part that was sent as well: sendfile goes on until
    // something fails, and does not tell of it when it has moved anything.
    var atOnce = timespec()
    if sigismember(&before, SIGPIPE) == 0 { sigtimedwait(&pipe, nil, &atOnce) }
    pthread_sigmask(SIG_SETMASK, &before, nil)
    errno = code
    return result
}
