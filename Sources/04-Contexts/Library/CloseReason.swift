import Glibc
import Kernel

/// Why a connection is over. Everything that can be learnt from a call or a packet becomes one of these, here and
/// nowhere else: code that decides what to do next looks at the reason, never at a number of the system. (I4.4)
public enum CloseReason: Hashable, Sendable, CustomStringConvertible {
    /// The other side has said that it will send no more.
    case ended
    /// The connection is gone without an end: reset, or its other side has not answered for too long.
    case reset
    /// This side did it: it closed the connection or cancelled the operation.
    case cancelled
    /// There never was a connection: no server listens, or none may be made.
    case refused
    /// No descriptor, no buffer, no memory, a limit reached. Later it may work.
    case outOfResources
    /// Anything else is a mistake in the program, with the system's number.
    case bug(Int32)

    /// The reason behind an error of a call or of a packet.
    public init(_ error: SystemError) {
        switch error.code {
        // The same reset, told by a receive, by a send, by a connection that waited to be accepted.
        case ECONNRESET, EPIPE, ECONNABORTED, ENETRESET: self = .reset
        // Keep-alive, or data that was not answered, has found that the peer is not there any more.
        case ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENETDOWN: self = .reset
        // A post on what this side has closed meanwhile finds it closed.
        case ECANCELED, EBADF, ESHUTDOWN: self = .cancelled
        case ECONNREFUSED, EADDRNOTAVAIL, EACCES, EPERM: self = .refused
        case ENOBUFS, ENOMEM, EMFILE, ENFILE, EAGAIN, ENOSPC: self = .outOfResources
        default: self = .bug(error.code)
        }
    }

    /// What a packet means for its connection; nil when it goes on.
    ///
    /// The status comes first: a failed operation has 0 bytes as well, and they mean nothing. Only 0 bytes of a
    /// receive that succeeded and had room are the end.
    public init?(_ purpose: Purpose, bytes: Int, error: SystemError?) {
        if let error {
            self.init(error)
        } else if purpose == .receive && bytes == 0 {
            self = .ended
        } else {
            return nil
        }
    }

    /// In a word or two.
    public var description: String {
        switch self {
        case .ended: "ended"
        case .reset: "reset"
        case .cancelled: "cancelled"
        case .refused: "refused"
        case .outOfResources: "out of resources"
        case .bug(let code): "bug (\(SystemError.text(code)))"
        }
    }
}
