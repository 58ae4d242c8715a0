import CKernel
import Glibc

extension File {
    /// Posts a read at `operation.offset`. Completes with as many bytes as the file has there, up to the buffer's
    /// size; a read that begins at or after the end of the file fails with `SystemError.endOfFile`.
    ///
    /// What the system has in its memory may be read before this returns. The completion comes the same way all the same.
    ///
    /// - Parameter buffer: The driver's until the completion.
    /// - Throws: EBADF when the file is closed, EINVAL when the offset is negative, EALREADY when the operation is
    ///   pending.
    ///
    /// Win32 counterpart: `ReadFile` on a handle opened with `FILE_FLAG_OVERLAPPED`.
    public func read(
        _ operation: Overlapped, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) {
        let isValid = operation.offset >= 0
        try post(operation, .read, .inward, buffer) { _ throws(SystemError) in
            guard isValid else { throw SystemError(EINVAL, attempted: "read before the start of a file") }
        }
    }

    /// Posts a write at `operation.offset`. Completes when every byte has been given to the system, or with an error.
    ///
    /// Up to 1 MiB into room that `reserve` has taken may be written before this returns. The completion comes the same way
    /// all the same.
    ///
    /// - Parameter buffer: The driver's until the completion, and unchanged.
    /// - Throws: EBADF when the file is closed or was opened for reading, EINVAL when the offset is negative, EALREADY
    ///   when the operation is pending.
    ///
    /// Win32 counterpart: `WriteFile` on a handle opened with `FILE_FLAG_OVERLAPPED`.
    public func write(_ operation: Overlapped, from buffer: UnsafeRawBufferPointer) throws(SystemError) {
        let isValid = operation.offset >= 0
        try post(operation, .write, .outward, UnsafeMutableRawBufferPointer(mutating: buffer)) {
            _ throws(SystemError) in
            guard isValid else { throw SystemError(EINVAL, attempted: "write before the start of a file") }
            guard !isReadOnly else {
                throw SystemError(EBADF, attempted: "write to a file that was opened for reading")
            }
        }
    }
}

extension Overlapped {
    final func attemptRead(_ descriptor: Int32) -> Attempt {
        let count = pread(
            descriptor, buffer.baseAddress.map { $0 + progress }, nextPiece, Int(offset) &+ progress)
        return count < 0 ? .failure(errno) : haveRead(count)
    }

    /// What one request of a read or write asks for.
    private final var nextPiece: Int { min(buffer.count - progress, Attempt.longestRequest) }

    /// The read, if the system has all of it in its memory: then it takes no longer than a copy. Nil: nothing is known,
    /// and the read may have to wait for the disk.
    final func attemptReadFromMemory(_ descriptor: Int32) -> Attempt? {
        guard operation == .read, buffer.count > 0 else { return nil }
        let count = ck_read_from_memory(descriptor, buffer.baseAddress, buffer.count, offset)
        return count == buffer.count ? .done(bytes: count, drained: false) : nil
    }

    final func prepareRead(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ tag: UInt64) {
        ck_sqe_fill(
            entry, UInt8(IORING_OP_READ.rawValue), descriptor, UInt64(offset) + UInt64(progress),
            buffer.baseAddress.map { $0 + progress }, UInt32(nextPiece), 0, tag)
    }

    final func concludeRead(_ answer: Int32) -> Attempt {
        answer < 0 ? .failed(-answer) : haveRead(Int(answer))
    }

    private final func haveRead(_ count: Int) -> Attempt {
        let isAllThereIs = count < nextPiece
        progress += count
        if progress == 0, buffer.count > 0 { return .failed(SystemError.endOfFile) }
        return isAllThereIs || progress == buffer.count ? .done(bytes: progress, drained: false) : .more
    }

    final func attemptWrite(_ descriptor: Int32) -> Attempt {
        let left = buffer.count - progress
        if left == 0 { return .done(bytes: progress, drained: false) }
        let count = pwrite(
            descriptor, buffer.baseAddress! + progress, nextPiece, Int(offset) &+ progress)
        return count < 0 ? .failure(errno) : wrote(count)
    }

    /// The write, if its room is reserved: then it takes no longer than a copy, as long as the disk keeps up. Once it has
    /// not, helpers wait for it. Nil: the write may have to look for room.
    final func attemptWriteToMemory(_ descriptor: Int32) -> Attempt? {
        guard operation == .write, buffer.count <= Overlapped.copyLimit, let file = handle as? File,
            offset <= file.reserved.load(ordering: .relaxed) - Int64(buffer.count)
        else { return nil }
        let start = monotonicNanoseconds()
        let outcome = attemptWrite(descriptor)
        if monotonicNanoseconds() - start > Overlapped.longestCopy {
            file.reserved.store(0, ordering: .relaxed)
        }
        return outcome
    }

    /// Bytes that a posting thread copies itself, at most: a fraction of a millisecond.
    private static let copyLimit = 1 << 20
    /// Nanoseconds that no copy of that size takes: a write that took longer has waited for the disk.
    private static let longestCopy: UInt64 = 10_000_000

    final func prepareWrite(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ tag: UInt64) {
        ck_sqe_fill(
            entry, UInt8(IORING_OP_WRITE.rawValue), descriptor, UInt64(offset) + UInt64(progress),
            buffer.baseAddress.map { $0 + progress }, UInt32(nextPiece), 0, tag)
    }

    final func concludeWrite(_ answer: Int32) -> Attempt {
        answer < 0 ? .failed(-answer) : wrote(Int(answer))
    }

    private final func wrote(_ count: Int) -> Attempt {
        progress += count
        if progress == buffer.count { return .done(bytes: progress, drained: false) }
        return count == 0 ? .failed(ENOSPC) : .more
    }
}
