import Contexts
import FileTransfer
import Kernel
import LockedMemory
import PrepostedAccepts
import Reordering
import WorkerPools

/// What an endpoint has done since its start, and what there is now.
///
/// The first group is of one moment: always as many have ended and are there as have come. The others are of that time,
/// to within the few microseconds that it takes to gather them; to have all of them at one moment would cost a lock for each
/// packet.
public struct Statistics: Sendable, Equatable {
    // MARK: One moment

    /// Connections that there are, attempts to connect included, and the most that there were.
    public var connections = 0, peak = 0
    /// Clients let in, and connections to servers.
    public var accepted = 0, connected = 0
    /// Clients not let in, and connections that ended: by reason.
    public var refused: [Refusal: Int] = [:], ends: [EndReason: Int] = [:]

    // MARK: About that time

    /// Messages and bytes.
    public var messagesIn = 0, messagesOut = 0, bytesIn = 0, bytesOut = 0
    /// Messages that came and went in a second, since the last look that is a second old.
    public var messagesPerSecond = 0.0
    /// Reads that wait for bytes.
    public var pendingReads = 0
    /// Sends under way, and the most of one session; sessions that are not read from for it, and how often that happened.
    public var pendingSends = 0, peakPendingSends = 0, paused = 0, pauses = 0
    /// The accepts of each listener.
    public var accepts: [AcceptPool.Counters] = []
    /// Jobs.
    public var jobs: WorkerPool.Counters?
    /// The contexts that bytes travel in; the pages that are locked for it; how connections wait for bytes.
    public var chunks: FreeList<Chunk>.Counters?, pages: PageBudget.Counters?, mode = ReceiveMode.buffered
    /// Files: those that this side has begun and that are not over, all that were complete, all that came to nothing.
    public var filesUnderWay = 0, filesDone = 0, filesFailed = 0
    /// Connections made again; messages that were acknowledged, and that came twice.
    public var reconnects = 0, acknowledged = 0, repeated = 0
    /// Ranges of addresses that are banned, and whether those there find out that there is a server.
    public var bans = 0, bansAreSilent = false
    /// The interface to the system.
    public var driver = DriverKind.epoll
    /// Sessions whose memory somebody still holds.
    public var alive = 0

    /// Nothing yet.
    public init() {}

    /// Whether nothing is left: no connection, no send, no buffer, no page, no job, no file.
    public var isQuiet: Bool {
        connections == 0 && pendingReads == 0 && pendingSends == 0 && paused == 0 && filesUnderWay == 0
            && (chunks?.inUse ?? 0) == 0
            && (pages?.locked ?? 0) == 0 && (jobs.map { $0.waiting + $0.running + $0.workers } ?? 0) == 0
            && ends.values.reduce(0, +) == accepted + connected
    }
}

/// What has gone through a session.
public struct SessionStatistics: Sendable, Equatable {
    /// Its name, and the other end's address.
    public var id: ConnectionID?, address: Address?
    /// Since when it stands, and when bytes came last: nanoseconds on the monotonic clock.
    public var since: UInt64, heard: UInt64
    /// Messages and bytes.
    public var messagesIn: Int, messagesOut: Int, bytesIn: Int, bytesOut: Int
    /// Sends under way, and whether it is not read from for that.
    public var pendingSends: Int, isPaused: Bool
    /// The file under way; of two the one that has moved last.
    public var file: TransferProgress?
    /// Why this side is ending it; nil when it is not.
    public var ending: EndReason?
}
