import CKernel
import Glibc

/// What went wrong with a call to the operating system, and what was attempted.
///
/// Win32 counterpart: the value of `GetLastError` or `WSAGetLastError`, with the missing half of the sentence.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The system's error number.
    public let code: Int32
    /// What was attempted, as the beginning of a sentence: `bind 127.0.0.1:80`.
    public let attempted: String

    /// An error with the system's number.
    public init(_ code: Int32, attempted: String) {
        self.code = code
        self.attempted = attempted
    }

    /// The error that the last system call of this thread left behind.
    static func last(_ attempted: String) -> SystemError { SystemError(errno, attempted: attempted) }

    /// Two errors are equal when the system's numbers are; the sentence around them may differ.
    public static func == (a: SystemError, b: SystemError) -> Bool { a.code == b.code }

    /// One line: what was attempted, what the system said, and what to do where that is known.
    public var description: String {
        var line = "\(attempted): \(Self.text(code))"
        if let advice = Self.advice[code] { line += " (\(advice))" }
        return line
    }

    /// The system's own words for an error number.
    public static func text(_ code: Int32) -> String {
        switch code {
        case SystemError.endOfFile: return "end of file"
        default: return String(cString: strerror(code))
        }
    }

    private static let advice: [Int32: String] = [
        EADDRINUSE: "another program listens there; choose another port, or 0 for any free one",
        EADDRNOTAVAIL:
            "it is no address of this machine, or no local port is left: those of ended connections are free after a minute",
        EMFILE: "this process has no descriptor left; raise `ulimit -n` or lower the number of clients",
        ENOBUFS: "over the budget of buffers; post again when a packet has come back",
        EACCES: "ports below 1024 and foreign files need rights that this process does not have",
    ]
}

extension SystemError {
    /// A read that begins at or after the end of a file. Linux has no number for it: a read there gives 0 bytes.
    ///
    /// Win32 counterpart: `ERROR_HANDLE_EOF` (38).
    public static let endOfFile: Int32 = 4096

    /// The operation was cancelled, or its handle was closed. Win32: `ERROR_OPERATION_ABORTED` (995), or
    /// after a close 1236 or 64.
    public static let cancelled: Int32 = ECANCELED
}

/// Calls the system until it is not interrupted by a signal, and turns -1 into an error.
@inline(__always)
func check(_ attempted: @autoclosure () -> String, _ call: () -> Int32) throws(SystemError) -> Int32 {
    while true {
        let result = call()
        if result >= 0 { return result }
        if errno != EINTR { throw .last(attempted()) }
    }
}

extension SystemError {
    /// An argument that means nothing. Win32: `ERROR_INVALID_PARAMETER` (87).
    public static func invalid(_ attempted: String) -> SystemError {
        SystemError(EINVAL, attempted: attempted)
    }

    /// Something was asked of what is closed already. Win32: `ERROR_INVALID_HANDLE` (6).
    public static func closed(_ attempted: String) -> SystemError { SystemError(EBADF, attempted: attempted) }
}
