import CKernel
import Glibc
import Synchronization

/// A file that is read and written at offsets. It has no position of its own, and no child process inherits it.
///
/// Win32 counterpart: a handle from `CreateFile` with `FILE_FLAG_OVERLAPPED`.
public final class File: Handle, @unchecked Sendable {
    /// What the file is opened for.
    public enum Access: Sendable {
        /// It has to exist.
        case reading
        /// It is made if it does not exist, and emptied if it does.
        case writing
        /// It is made, and must not exist yet.
        case creating
    }

    /// The path that the file was opened with.
    public let path: String
    let isReadOnly: Bool
    /// Up to here a write finds its room: it is a copy into the system's memory.
    let reserved = Atomic<Int64>(0)

    /// - Throws: ENOENT, EACCES, EISDIR, EEXIST, EMFILE, with the path in the sentence.
    public init(_ path: String, for access: Access = .reading) throws(SystemError) {
        let flags =
            switch access {
            case .reading: O_RDONLY
            case .writing: O_RDWR | O_CREAT | O_TRUNC
            case .creating: O_RDWR | O_CREAT | O_EXCL
            }
        self.path = path
        isReadOnly = access == .reading
        let descriptor = try check("open \(path)") { ck_open(path, flags | O_CLOEXEC, 0o644) }
        super.init(descriptor: descriptor, kind: .file)
        var status = stat()
        if fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
            throw SystemError(EISDIR, attempted: "open \(path)")
        }
    }

    /// Bytes in the file now. It may change before you use the number. - Throws: EBADF when closed.
    public var size: Int64 {
        get throws(SystemError) {
            var status = stat()
            let descriptor = descriptor
            _ = try check("ask for the size of \(path)") { fstat(descriptor, &status) }
            return Int64(status.st_size)
        }
    }

    /// Makes the file this long; new bytes are zero and take no room on the disk until they are written.
    public func setSize(_ bytes: Int64) throws(SystemError) {
        let descriptor = descriptor
        _ = try check("set the size of \(path)") { ftruncate(descriptor, off_t(bytes)) }
        // What is cut off has no room any more, even if the file grows again.
        reserved.store(min(reserved.load(ordering: .relaxed), bytes), ordering: .relaxed)
    }

    /// Makes the file at least this long and takes all its room on the disk, so that no write has to look for some. Where
    /// the file system cannot do that, nothing happens. May wait for the disk. Writes into that room may be carried out
    /// before their post returns.
    ///
    /// - Throws: ENOSPC, EDQUOT, EFBIG; then the file may have a part of the room.
    ///
    /// Win32 counterpart: `SetEndOfFile` before the first write. There writes into new room wait all the same, unless
    /// `SetFileValidData` is called or the last byte is written first.
    public func reserve(_ bytes: Int64) throws(SystemError) {
        guard bytes > 0 else { return }
        let descriptor = descriptor
        var space = statvfs()
        // For a file that does not fit the system would take all the room there is, and give it back in the end: until then
        // no other program could write. Some file systems do not say how much room there is.
        if fstatvfs(descriptor, &space) == 0, space.f_blocks > 0,
            UInt64(bytes) / UInt64(space.f_frsize) > UInt64(space.f_bfree)
        {
            throw SystemError(ENOSPC, attempted: "reserve \(bytes) bytes for \(path)")
        }
        if ck_fallocate(descriptor, 0, 0, bytes) == 0 { return reserved.store(bytes, ordering: .relaxed) }
        guard errno == EOPNOTSUPP || errno == ENOSYS else {
            throw SystemError(errno, attempted: "reserve \(bytes) bytes for \(path)")
        }
    }

    /// Waits until what was written is on the disk. Win32 counterpart: `FlushFileBuffers`.
    public func flush() throws(SystemError) {
        let descriptor = descriptor
        _ = try check("flush \(path)") { fsync(descriptor) }
    }

    /// Waits until the names in a folder are on the disk: a flushed file may still be without its new name after a power
    /// cut.
    ///
    /// - Throws: ENOENT, ENOTDIR, EACCES, EIO.
    public static func flushNames(in folder: String) throws(SystemError) {
        let descriptor = try check("open the folder \(folder)") {
            ck_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        }
        defer { Glibc.close(descriptor) }
        _ = try check("flush the folder \(folder)") { fsync(descriptor) }
    }
}
