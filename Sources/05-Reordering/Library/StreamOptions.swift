import CompletionPorts
import Contexts
import Kernel
import PrepostedAccepts

extension StreamHub {
    /// The limits and choices.
    public struct Options: Sendable {
        /// Threads that handle packets.
        public var workers = 2
        /// How many of them may run at a time; 0 means as many as there are processors.
        public var concurrency = 0
        /// Packets that a worker takes at a time. More than 1 is faster with handlers that are short and never block.
        public var batch = 1
        /// Reads that each connection has pending, 1 to 64. A chunk that is kept counts.
        public var pendingReads = 2
        /// Bytes that fit into a chunk.
        public var chunkCapacity = 4096
        /// Bytes of the largest buffer that a client is read into as long as it fills what it is read into: 16, 64 or 256 KiB.
        /// With no more than `chunkCapacity` it is always a chunk.
        public var maximumReadSize = 256 << 10
        /// Whether reads grow by themselves. If not, only what a handler says to `expect` is read into larger buffers: for servers
        /// that do something for each message, and so want few of them at a time.
        public var growsUnasked = true
        /// Bytes of such buffers that are out at a time, for all connections. While that is too much, clients are read into
        /// smaller ones; none waits.
        public var maximumLargerBytes = 64 << 20
        /// What connections wait for bytes with; nil: as many reads as there may be, each into memory of its chunk.
        public var receives: (any ReceivePolicy)?
        /// Connections at a time. One more is closed at once, and counted.
        public var maximumConnections = 12_000
        /// Contexts that a connection has for sending, open tickets included.
        public var maximumPendingSends = 64
        /// Chunks that are kept for reuse.
        public var maximumFreeChunks = 1024
        /// The accepts of each listener. With room for first data, a client's first bytes come with its accept; that room is at
        /// most what all pending reads have.
        public var accepts: AcceptPool.Options
        /// Whether and how the system asks silent peers.
        public var keepAlive: KeepAlive? = KeepAlive()
        /// The port's own choices, the driver among them.
        public var port = CompletionPort.Options()
        /// Which port a new connection's packets go to; nil: the hub's own.
        public var ports: (any PortChoice)?
        /// What the workers are called in a recording.
        package var workerName = "worker"
        /// The number of each connection's first read: a demonstration may begin near the end of the circle.
        package var firstNumber = SequenceNumber(0)
        /// Looks on. For demonstrations and tests.
        package var probe: StreamProbe?

        /// The defaults.
        public init() {
            accepts = AcceptPool.Options()
            // A client need not say anything first.
            accepts.receiveLength = 0
        }
    }

    /// What has happened so far, and what is there now. When all is over, as many were announced and released as were
    /// opened, and no chunk is in use.
    public struct Counters: Sendable, Equatable {
        /// Connections at this moment.
        public internal(set) var connections: Int
        /// Connections taken in or begun, since the start.
        public internal(set) var opened: Int
        /// Handlers that have heard of the end.
        public internal(set) var announced: Int
        /// Connections whose memory has been given back.
        public internal(set) var released: Int
        /// Connections that were closed at once, since there were too many.
        public internal(set) var refused: Int
        /// Clients that were told in words that they may not stay.
        public internal(set) var declined: Int
        /// Clients that were reset instead of let in.
        public internal(set) var dropped: Int
        /// The ends announced, by their reason.
        public internal(set) var reasons: [CloseReason: Int]
        /// The windows of those that are over: the most that waited in one, and how many came early in all.
        public internal(set) var window: StreamConnection.WindowCounters
        /// What all connections have been read with.
        public internal(set) var reads: ReadCounters
        /// What has gone through all connections.
        public internal(set) var traffic: Traffic
        /// The chunks of all connections.
        public internal(set) var chunks: FreeList<Chunk>.Counters
        /// Connections that still have a reference to them.
        public var alive: Int { opened - released }
    }

    /// What has happened so far. The sums are those of a walk along all connections.
    public var counters: Counters {
        var sums = sums
        for connection in connections {
            var (_, traffic, reads) = connection.totals
            traffic.pendingReads = connection.traffic.pendingReads
            sums.traffic.add(traffic)
            sums.reads.add(reads)
        }
        let ledger = registry.counters
        return Counters(
            connections: registry.count, opened: ledger.opened, announced: ledger.announced,
            released: ledger.released, refused: ledger.refused, declined: sums.declined,
            dropped: sums.dropped,
            reasons: ledger.reasons, window: sums.window, reads: sums.reads, traffic: sums.traffic,
            chunks: chunks.counters)
    }
}

/// What connections have been read with.
public struct ReadCounters: Sendable, Equatable {
    /// Packets of reads with a buffer.
    public internal(set) var reads = 0
    /// Packets of receives without one.
    public internal(set) var waits = 0
    /// Those of them after which there was nothing to be read.
    public internal(set) var vainWaits = 0

    /// Nothing yet.
    public init() {}

    init(_ counters: OrderedReceiver.Counters) {
        (reads, waits, vainWaits) = (Int(counters.reads), Int(counters.waits), Int(counters.vainWaits))
    }

    mutating func add(_ other: ReadCounters) {
        reads += other.reads
        waits += other.waits
        vainWaits += other.vainWaits
    }
}

/// What becomes of a client that has come.
public enum Admission: Sendable {
    /// It is let in.
    case welcome
    /// It is told why not: these bytes are sent, and no handler is made for it.
    case refuse([UInt8])
    /// It is reset.
    case drop
}

/// Says which port a new connection's packets go to, where there are several: chapter 12 has them. Any thread may call it,
/// several at once.
public protocol PortChoice: AnyObject, Sendable {
    /// The port for a connection that is about to be taken in. Without a lock.
    func port(for connection: StreamConnection) -> CompletionPort
    /// It is over, or has not been taken in. The last that is heard of it.
    func ended(_ connection: StreamConnection)
}

/// A listener: the packets of its accepts are for its pool.
final class StreamListener: PacketOwner, @unchecked Sendable {
    let pool: AcceptPool
    let socket: Socket

    init(_ pool: AcceptPool, _ socket: Socket) { (self.pool, self.socket) = (pool, socket) }

    override func handle(_ packet: Packet, _ error: SystemError?) { pool.handle(packet, error) }
}

/// A client that may not stay, and is told so.
///
/// A connection that is closed while bytes lie in it unread is reset, and the reset throws the words away before the client has
/// read them. So the end is said after the words, what the client says is thrown away, and the connection is closed when the
/// client has ended, has sent too much, or has taken too long.
final class Parting: StreamHandler {
    /// At a time. One more is reset.
    static let maximum = 64
    /// Bytes that are thrown away.
    static let byteLimit = 64 << 10
    /// How long it may take.
    static let patience = Duration.seconds(1)
    private let words: [UInt8]

    init(_ words: [UInt8]) { self.words = words }

    func opened(_ connection: StreamConnection) {
        words.withUnsafeBytes { bytes in try? connection.send(SharedBytes(bytes)) }
        connection.finish()
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        if connection.traffic.bytesReceived > Parting.byteLimit { connection.close() }
    }
}

/// Looks on while chunks go their way: tests hold workers back here, demonstrations write down what they see.
package struct StreamProbe: Sendable {
    /// A worker has a chunk's packet, and has done nothing with it yet.
    package var arrived: @Sendable (Chunk) -> Void = { _ in }
    /// A worker has the packet of a wait, and has not read yet.
    package var readable: @Sendable (StreamConnection) -> Void = { _ in }
    /// A read has its number, and is not posted yet. The connection's lock is held.
    package var numbered: @Sendable (Chunk) -> Void = { _ in }
    /// A read is about to be put into the window. The connection's lock is held.
    package var placed: @Sendable (Chunk) -> Void = { _ in }

    /// A probe that does nothing.
    package init() {}
}
