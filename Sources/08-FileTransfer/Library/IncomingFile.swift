import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Synchronization
import Timeline

/// A file that is arriving: it has a temporary name beside its final one, and all its room on the disk, before the first
/// byte comes. Under its final name there is nothing, and then the whole file; never a part of it. (I8.4)
final class IncomingFile: @unchecked Sendable {
    let file: File
    private let path: String
    private let folder: String
    private let temporaryPath: String
    private let service: FileService
    private let room: (bytes: Int64, address: String?)
    private let isDiscarded = Atomic<Bool>(false)
    /// Belongs to the thread that sums up: one at a time, in the order of the bytes.
    var checksum = Checksum()
    /// Guarded by the lock of the transfer: what is to be summed up, and whether that is being done.
    var unsummed: [PieceWrite] = []
    var isSumming = false
    private static let count = Atomic<Int>(0)

    /// Makes the file and reserves its room: a full disk says so before a byte has crossed the wire, and no write has to
    /// look for room. May wait for the disk.
    init(
        _ request: FileRequest, _ size: UInt64, from address: String?, _ service: FileService,
        port: CompletionPort
    ) throws(TransferFailure) {
        self.service = service
        let options = service.options
        folder = request.path
        path = request.name.path(in: folder)
        guard let length = Int64(exactly: size), length <= options.maximumFileSize else {
            throw .tooLarge
        }
        if !options.replaces, access(path, F_OK) == 0 { throw .exists }
        try service.reserve(length, for: address, in: folder)
        room = (length, address)
        let number = IncomingFile.count.add(1, ordering: .relaxed).newValue
        // Unlike any that an earlier run of this program may have left behind when it was killed.
        temporaryPath = "\(folder)/\(SafeName.temporaryPrefix)\(monotonicNanoseconds())-\(getpid())-\(number)"
        do throws(SystemError) { file = try File(temporaryPath, for: .creating) } catch {
            service.giveBack(length, of: address)
            throw TransferFailure(error, writing: true)
        }
        do throws(SystemError) {
            if options.preallocates { try file.reserve(length) }
            try port.associate(file, key: 0)
        } catch {
            discard()
            throw TransferFailure(error, writing: true)
        }
    }

    /// Gives the file its name, in one step of the file system. A file that has come to be there meanwhile stays, unless
    /// it is to be replaced. May wait for the disk.
    func keep() throws(TransferFailure) {
        defer { discard() }
        let options = service.options
        do throws(SystemError) {
            if options.flushes { try file.flush() }
            // A second name fails where there is one already; a new name for the first would replace it silently.
            let result = options.replaces ? rename(temporaryPath, path) : link(temporaryPath, path)
            if result != 0 { throw SystemError(errno, attempted: "name \(path)") }
            if options.flushes { try File.flushNames(in: folder) }
        } catch {
            throw TransferFailure(error, writing: true)
        }
    }

    /// Takes the temporary name away, and with it a file that has no other. What is still being written is cancelled. The
    /// room is given back with it, once.
    func discard() {
        guard !isDiscarded.exchange(true, ordering: .relaxed) else { return }
        unlink(temporaryPath)
        file.close()
        service.giveBack(room.bytes, of: room.address)
    }
}

/// A write of received bytes, from the very chunk in which they came. (I8.7)
final class PieceWrite: HubTask, Pooled, @unchecked Sendable {
    var link = PoolLink()
    private var target: (file: IncomingFile, chunk: Chunk, transfer: FileTransfer)?
    private var part = UnsafeRawBufferPointer(start: nil, count: 0)

    /// Keeps the chunk: it is read into again when the bytes are written, and so a slow disk holds the sender back.
    func keep(
        _ bytes: UnsafeRawBufferPointer, of chunk: Chunk, at offset: UInt64, for file: IncomingFile,
        _ transfer: FileTransfer
    ) {
        target = (file, chunk, transfer)
        part = bytes
        self.offset = Int64(offset)
        chunk.keep()
    }

    /// Sums the bytes up and posts the write. It may be through when the call returns.
    func start() {
        guard let file = target?.file else { return }
        file.checksum.add(part)
        Recorder.label(identity, "write at \(offset)")
        do throws(SystemError) { try file.file.write(self, from: part) } catch { completed(0, error) }
    }

    /// The chunk is read into again only now.
    override func completed(_ bytes: Int, _ error: SystemError?) {
        guard let (file, chunk, transfer) = target else { return }
        target = nil
        transfer.service.writes.giveBack(self)
        chunk.giveBack()
        transfer.wrote(file, bytes, error)
    }
}
