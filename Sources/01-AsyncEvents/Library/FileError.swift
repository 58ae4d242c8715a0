import Kernel

/// Why a file was not read or copied to its end.
public enum FileError: Error, Equatable, CustomStringConvertible {
    /// The system refused something; the error says what.
    case failed(SystemError)
    /// So many requests cannot be waited for at once. Nothing was posted.
    case refused(WaitError)
    /// It is a pipe, a terminal or a device: it has no offsets, or no end.
    case notRegular(path: String)
    /// The file was `expected` bytes long at the start and ended at `found`.
    case shrank(path: String, expected: Int64, found: Int64)
    /// The file was `expected` bytes long at the start, and more bytes follow there now.
    case grew(path: String, expected: Int64)
    /// A write took a part only.
    case shortWrite(path: String)
    /// Source and target are one file, perhaps under two names.
    case sameFile(String, String)

    /// One line.
    public var description: String {
        switch self {
        case .failed(let error): "\(error)"
        case .refused(let error): "\(error)"
        case .notRegular(let path): "read \(path): it is no regular file, so it has no size to go by"
        case .shrank(let path, let expected, let found):
            "read \(path): it was \(expected) bytes long and ends at \(found) now; somebody else is writing to it"
        case .grew(let path, 0): "read \(path): it says that it is empty and is not (or not any more)"
        case .grew(let path, let expected):
            "read \(path): it was \(expected) bytes long and has grown; somebody else is writing to it"
        case .shortWrite(let path): "write \(path): a write fell short"
        case .sameFile(let one, let other): "copy \(one) to \(other): that is the same file"
        }
    }

    static func system<Result>(
        _ call: @autoclosure () throws(SystemError) -> Result
    ) throws(FileError) -> Result {
        do { return try call() } catch { throw .failed(error) }
    }
}
