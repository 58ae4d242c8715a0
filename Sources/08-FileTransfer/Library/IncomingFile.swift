import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Synchronization
import Timeline

/// A file that is arriving: it has a temporary name beside its final one, and all its room on the disk, before the first
/// byte comes. Under its final name there is nothing, and then the whole file; never a part of it. (I8.4)
///
/// What changes is guarded by the lock of the connection. What may wait for the disk belongs inside `port.blocking`.
final class IncomingFile: @unchecked Sendable {
    let id: UInt32
    let name: SafeName
    let observer: TransferObserver
    let file: File
    private let folder: String
    private let temporaryPath: String
    private let options: TransferOptions
    var state: ReceivingState
    var meter = TransferMeter()
    /// Belongs to the stream's calls, which come one at a time and in the order of the bytes.
    var checksum = Checksum()
    private static let count = Atomic<Int>(0)

    /// Makes the file and reserves its room: a full disk says so before a byte has crossed the wire, and no write has to
    /// look for room. May wait for the disk.
    init(
        _ id: UInt32, _ name: SafeName, in folder: String, size: UInt64, hub: TransferHub,
        _ observer: TransferObserver
    ) throws(TransferFailure) {
        options = hub.options
        guard let length = Int64(exactly: size), length <= options.maximumFileSize else { throw .tooLarge }
        if !options.replaces, access(name.path(in: folder), F_OK) == 0 { throw .exists }
        let number = IncomingFile.count.add(1, ordering: .relaxed).newValue
        // Unlike any that an earlier run of this program may have left behind when it was killed.
        temporaryPath = "\(folder)/\(SafeName.temporaryPrefix)\(monotonicNanoseconds())-\(getpid())-\(number)"
        do throws(SystemError) { file = try File(temporaryPath, for: .creating) } catch {
            throw TransferFailure(error, writing: true)
        }
        (self.id, self.name, self.folder, self.observer) = (id, name, folder, observer)
        state = ReceivingState(size: size, limits: options.limits, now: monotonicNanoseconds())
        do throws(SystemError) {
            if options.preallocates { try file.reserve(length) }
            try hub.port.associate(file, key: 0)
        } catch {
            discard()
            throw TransferFailure(error, writing: true)
        }
    }

    /// Gives the file its name, in one step of the file system. A file that has come to be there meanwhile stays, unless
    /// it is to be replaced. May wait for the disk.
    func keep() throws(TransferFailure) {
        defer { discard() }
        do throws(SystemError) {
            if options.flushes { try file.flush() }
            let path = name.path(in: folder)
            // A second name fails where there is one already; a new name for the first would replace it silently.
            let result = options.replaces ? rename(temporaryPath, path) : link(temporaryPath, path)
            if result != 0 { throw SystemError(errno, attempted: "name \(path)") }
            if options.flushes { try File.flushNames(in: folder) }
        } catch {
            throw TransferFailure(error, writing: true)
        }
    }

    /// Takes the temporary name away, and with it a file that has no other. What is still being written is cancelled.
    func discard() {
        unlink(temporaryPath)
        file.close()
    }
}

/// A write of received bytes, from the very chunk in which they came. (I8.7)
final class PieceWrite: HubTask, Pooled, @unchecked Sendable {
    var link = PoolLink()
    private var target: (file: IncomingFile, chunk: Chunk, connection: TransferConnection)?

    /// Keeps the chunk and posts the write.
    func start(
        _ bytes: UnsafeRawBufferPointer, of chunk: Chunk, at offset: UInt64, to file: IncomingFile,
        _ connection: TransferConnection
    ) {
        target = (file, chunk, connection)
        self.offset = Int64(offset)
        Recorder.label(identity, "write at \(offset)")
        // Before the post: it may be through when the call returns.
        chunk.keep()
        do throws(SystemError) { try file.file.write(self, from: bytes) } catch { completed(0, error) }
    }

    /// The chunk is read into again only now: so a disk that is slow holds the sender back.
    override func completed(_ bytes: Int, _ error: SystemError?) {
        guard let (file, chunk, connection) = target else { return }
        target = nil
        connection.hub.writes.giveBack(self)
        chunk.giveBack()
        connection.wrote(file, bytes, error)
    }
}
