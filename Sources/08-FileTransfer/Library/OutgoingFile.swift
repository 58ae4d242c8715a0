import CKernel
import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Timeline

/// A file that is to be sent when its turn comes.
final class FileRequest: Sendable {
    let path: String
    let name: SafeName
    /// The question that it answers; 0 when nobody asked.
    let question: UInt32
    let observer: TransferObserver

    init(_ path: String, _ name: SafeName, question: UInt32 = 0, _ observer: TransferObserver) {
        (self.path, self.name, self.question, self.observer) = (path, name, question, observer)
    }
}

/// A file that is being sent. Others may have it open, read it and even write it meanwhile: if it is not the announced
/// one any more, that is found out. (I8.4) What changes is guarded by the lock of the connection.
final class OutgoingFile: @unchecked Sendable {
    let request: FileRequest
    let file: File
    let size: UInt64
    let id: UInt32
    var state: SendingState
    var meter = TransferMeter()
    /// A part of the file is being read, and whoever brings it has the sum.
    var isSumming = false
    var summed: UInt64 = 0
    var checksum = Checksum()

    /// Opens a file for reading, whoever else has it open. May wait for the disk, and belongs inside `port.blocking`.
    ///
    /// What this side has chosen may be a link; what the other side has named is in the folder, or is not sent.
    init(_ request: FileRequest, id: UInt32, hub: TransferHub) throws(TransferFailure) {
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
        // Nothing may come behind its end. A file that the system makes up as it is read says that it is empty.
        var byte: UInt8 = 0
        guard pread(look, &byte, 1, status.st_size) == 0 else { throw .cannotRead }
        do throws(SystemError) {
            file = try File("/proc/self/fd/\(look)")
            size = UInt64(try file.size)
            // The system reads further ahead. Win32: FILE_FLAG_SEQUENTIAL_SCAN.
            _ = posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_SEQUENTIAL)
            try hub.port.associate(file, key: 0)
        } catch {
            throw TransferFailure(error, writing: false)
        }
        self.request = request
        self.id = id
        state = SendingState(
            size: size, pieceLimit: hub.options.pieceLimit, limits: hub.options.limits,
            now: monotonicNanoseconds())
    }

    var name: String { request.name.description }

    /// Whether the file still has the announced length.
    var isUnchanged: Bool { (try? file.size).map { $0 == Int64(size) } ?? false }
}

/// Reads a part of a file, to sum it up: what is transmitted never comes into this program's memory.
final class SumRead: HubTask, Pooled, @unchecked Sendable {
    var link = PoolLink()
    /// With the stream, so that a hub that stops waits for this read, too.
    private var target: (file: OutgoingFile, connection: TransferConnection, stream: StreamConnection)?
    private static let capacity = 512 << 10
    private let memory = BufferMemory.take(capacity)

    deinit { BufferMemory.giveBack(memory) }

    /// Under the lock of the connection. From here on the sum is whoever's that brings the packet.
    func start(_ file: OutgoingFile, _ connection: TransferConnection, _ stream: StreamConnection)
        throws(SystemError)
    {
        target = (file, connection, stream)
        offset = Int64(file.summed)
        let count = min(SumRead.capacity, Int(file.state.mayBeSummed - file.summed))
        Recorder.label(identity, "sum up at \(offset)")
        try file.file.read(self, into: UnsafeMutableRawBufferPointer(rebasing: memory[..<count]))
    }

    func giveBack(to hub: TransferHub) {
        target = nil
        hub.reads.giveBack(self)
    }

    override func completed(_ bytes: Int, _ error: SystemError?) {
        guard let (file, connection, stream) = target else { return }
        file.checksum.add(UnsafeRawBufferPointer(rebasing: memory[..<bytes]))
        giveBack(to: connection.hub)
        withExtendedLifetime(stream) { connection.summedUp(file, bytes, error) }
    }
}
