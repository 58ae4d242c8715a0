import Contexts
import Glibc
import Kernel
import Reordering

/// What the connections of a program have in common when they carry files: the limits, the folder, the room in it, and two
/// pools. Any thread may use it. It knows no connection: each has a `FileTransfer`.
public final class FileService: Sendable {
    /// The limits and choices.
    public let options: TransferOptions
    let events: FileEvents
    let writes = FreeList<PieceWrite>(maximumFree: 1_024) { PieceWrite() }
    let reads = FreeList<SumRead>(maximumFree: 8) { SumRead() }
    /// Bytes of the room that are taken: by address, and by all.
    private let taken = Guarded<(of: [String: Int64], total: Int64)>(([:], 0))

    /// - Throws: ENOTDIR, ENOENT or EACCES when nothing can be put into the folder.
    public init(_ options: TransferOptions, events: FileEvents = FileEvents()) throws(SystemError) {
        try options.checkFolder()
        self.options = options
        self.events = events
    }

    /// Writes that are waiting for the disk.
    public var pendingWrites: Int { writes.counters.inUse }

    /// Bytes of the room that arriving files have taken.
    public var takenRoom: Int64 { taken.locked { $0.total } }

    /// Whether nothing is under way: no read, no write, no room taken.
    public var isIdle: Bool { writes.counters.inUse == 0 && reads.counters.inUse == 0 && takenRoom == 0 }

    /// How often a clock should come by for these limits: four times in the shortest of them.
    public var round: Duration {
        let shortest = min(options.limits.answer, options.limits.stall, options.limits.grace)
        return min(max(.nanoseconds(Int64(shortest / 4)), .milliseconds(5)), .milliseconds(250))
    }

    /// Takes room for a file that is to arrive, before anything is made of it. (I8.8)
    ///
    /// - Parameter address: The sender, if it comes unasked; nil for a file that this side has asked for, which may take all there is.
    /// - Throws: `diskFull` when there is not so much; `overShare` when it were too much for one address.
    func reserve(_ bytes: Int64, for address: String?, in folder: String) throws(TransferFailure) {
        let free = freeRoom(in: folder)
        try taken.locked { taken throws(TransferFailure) in
            // What the files that are arriving have reserved is not free on the disk any more.
            let room = options.room ?? free.map { $0 + (options.preallocates ? taken.total : 0) } ?? .max
            let left = options.room == nil ? free ?? .max : room - taken.total
            guard bytes <= left else { throw .diskFull }
            if let address {
                let own = taken.of[address, default: 0]
                guard Double(own) + Double(bytes) <= Double(room) * options.share else { throw .overShare }
                taken.of[address] = own + bytes
            }
            taken.total += bytes
        }
    }

    /// Gives room back that was taken: once, which is the file's business.
    func giveBack(_ bytes: Int64, of address: String?) {
        taken.locked { taken in
            taken.total -= bytes
            guard let address else { return }
            let own = taken.of[address, default: 0] - bytes
            taken.of[address] = own > 0 ? own : nil
        }
    }

    /// Bytes that are free on the disk of the folder; nil where the system does not say.
    private func freeRoom(in folder: String) -> Int64? {
        var space = statvfs()
        guard statvfs(folder, &space) == 0, space.f_blocks > 0 else { return nil }
        return Int64(
            clamping: UInt64(space.f_bavail).multipliedReportingOverflow(by: UInt64(space.f_frsize)).0)
    }
}

/// What happens with files that this side has not named. Called by workers and by the clock; no lock is held.
public struct FileEvents: Sendable {
    /// A file is announced that this side has not asked for: its transfer, name and size. False: it is not wanted.
    public var offered: @Sendable (FileTransfer, TransferID, _ name: String, _ size: UInt64) -> Bool = {
        _, _, _, _ in
        true
    }
    /// How far such a file is, or one that is sent since it was asked for.
    public var progress: @Sendable (FileTransfer, TransferProgress) -> Void = { _, _ in }
    /// Such a file has come, or has come to nothing.
    public var received: @Sendable (FileTransfer, TransferResult) -> Void = { _, _ in }
    /// A file that was asked for has been sent, or has come to nothing.
    public var sent: @Sendable (FileTransfer, TransferResult) -> Void = { _, _ in }

    /// Nothing is called.
    public init() {}
}
