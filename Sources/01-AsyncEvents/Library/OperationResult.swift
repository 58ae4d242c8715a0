import Kernel

/// Why an operation has no byte count to give.
public enum ResultError: Error, Equatable, CustomStringConvertible {
    /// It is still pending. Ask again later, or ask with waiting. Win32: `ERROR_IO_INCOMPLETE` (996).
    case incomplete
    /// A read began at or after the end of the file. Win32: `ERROR_HANDLE_EOF` (38).
    case endOfFile
    /// It failed, or was cancelled.
    case failed(SystemError)

    /// One line.
    public var description: String {
        switch self {
        case .incomplete: "the operation is still pending"
        case .endOfFile: "the end of the file"
        case .failed(let error): "\(error)"
        }
    }
}

extension Overlapped {
    /// What came of the operation: how many bytes it transferred. May be asked any number of times, by any thread,
    /// and answers the same until the operation is posted again, which resets it and its event (I1.5).
    ///
    /// The operation's own status decides, not its event (I1.2): an event that some other wait has used up, or that
    /// another thread has reset, changes nothing.
    ///
    /// - Parameter waiting: whether to block until there is a result or the deadline has passed. That makes a plain
    ///   blocking call of it.
    /// Win32 counterpart: `GetOverlappedResult`, `GetOverlappedResultEx`.
    public func result(waiting: Bool = false, until deadline: Deadline = .never) throws(ResultError) -> Int {
        if isPending {
            guard waiting, wait(until: deadline) else { throw .incomplete }
        }
        guard let error else { return bytes }
        throw error.code == SystemError.endOfFile ? .endOfFile : .failed(error)
    }
}
