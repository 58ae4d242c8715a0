import CKernel
import CompletionPorts
import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Timeline

/// A file that is being sent. Others may have it open, read it and even write it meanwhile: if it is not the announced
/// one any more, that is found out. (I8.4)
final class OutgoingFile: @unchecked Sendable {
    let file: File
    let size: UInt64
    /// Belongs to the worker with the packet of a read: there is one at a time.
    var checksum = Checksum()
    /// Guarded by the lock of the transfer.
    var isSumming = false

    /// Opens a file for reading, whatever other program has it open. May wait for the disk, and belongs inside `port.blocking`.
    ///
    /// What this side has chosen may be a link; what the other side has named is in the folder, or is not sent.
    init(_ request: FileRequest, port: CompletionPort) throws(TransferFailure) {
        // A look first that never waits: not for the other end of a pipe, and not for a program that has a lease on the
        // file, which is what having a file for oneself is here. Only what was looked at is opened for good.
        let flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | (request.question == 0 ? 0 : O_NOFOLLOW)
        let look = ck_open(request.path, flags, 0)
        guard look >= 0 else {
            throw TransferFailure(SystemError(errno, attempted: "open"), writing: false)
        }
        defer { Glibc.close(look) }
        var status = stat()
        guard fstat(look, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { throw .cannotRead }
        // Some are made while they are read, and say any length: those of /proc none at all, those of /sys a page.
        var byte: UInt8 = 0
        let end = status.st_size
        guard pread(look, &byte, 1, end) == 0, end == 0 || pread(look, &byte, 1, end - 1) == 1 else {
            throw .notAFile
        }
        do throws(SystemError) {
            file = try File("/proc/self/fd/\(look)")
            size = UInt64(try file.size)
            // The system reads further ahead. Win32: FILE_FLAG_SEQUENTIAL_SCAN.
            _ = posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_SEQUENTIAL)
            try port.associate(file, key: 0)
        } catch {
            throw TransferFailure(error, writing: false)
        }
    }

    /// Whether the file still has the announced length.
    var isUnchanged: Bool { (try? file.size).map { $0 == Int64(size) } ?? false }
}

/// Reads a part of a file, to sum it up: what is transmitted never comes into this program's memory.
final class SumRead: HubTask, Pooled, @unchecked Sendable {
    var link = PoolLink()
    /// With the connection, so that a service that stops waits for this read, too.
    private var target:
        (file: OutgoingFile, transfer: FileTransfer, connection: FramedConnection<LengthPrefixed>)?
    private static let capacity = 512 << 10
    private let memory = BufferMemory.take(capacity)

    deinit { BufferMemory.giveBack(memory) }

    /// Under the lock of the transfer. From here on the sum belongs to the worker that brings the packet.
    func start(
        _ file: OutgoingFile, at offset: UInt64, upTo count: Int, _ transfer: FileTransfer,
        _ connection: FramedConnection<LengthPrefixed>
    ) throws(SystemError) {
        target = (file, transfer, connection)
        self.offset = Int64(offset)
        Recorder.label(identity, "sum up at \(offset)")
        let part = memory[..<min(SumRead.capacity, count)]
        do throws(SystemError) {
            try file.file.read(self, into: UnsafeMutableRawBufferPointer(rebasing: part))
        } catch {
            target = nil
            throw error
        }
    }

    override func completed(_ bytes: Int, _ error: SystemError?) {
        guard let (file, transfer, connection) = target else { return }
        transfer.service.options.sums { [self] in
            file.checksum.add(UnsafeRawBufferPointer(rebasing: memory[..<bytes]))
            target = nil
            transfer.service.reads.giveBack(self)
            withExtendedLifetime(connection) { transfer.summedUp(file, bytes, error) }
        }
    }
}
