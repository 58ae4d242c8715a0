import AsyncEvents
import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering

/// Connections that carry files: the streams of chapter 05, two pools, and a clock. It is a server as soon as it
/// listens, and a client as soon as it connects.
public final class TransferHub: @unchecked Sendable {
    /// The limits and choices.
    public let options: TransferOptions
    let events: TransferEvents
    let streams: StreamHub
    let writes = FreeList<PieceWrite>(maximumFree: 1_024) { PieceWrite() }
    let reads = FreeList<SumRead>(maximumFree: 8) { SumRead() }
    private let open = Guarded<[ObjectIdentifier: TransferConnection]>([:])
    private let end = Event(.manual)
    private let clock: Kernel.Thread

    /// - Throws: ENOTDIR, ENOENT or EACCES when nothing can be put into the folder; what `StreamHub` throws.
    public init(_ options: TransferOptions, events: TransferEvents = TransferEvents()) throws(SystemError) {
        try options.checkFolder()
        self.options = options
        self.events = events
        streams = try StreamHub(options.streams)
        let (open, end) = (open, end)
        let pause = Duration.nanoseconds(Int64(min(options.limits.answer, options.limits.stall) / 4))
        let round = min(max(pause, TransferHub.shortestRound), TransferHub.longestRound)
        clock = try Kernel.Thread("transfer clock") {
            while end.wait(until: .after(round)) == .timedOut {
                let now = monotonicNanoseconds()
                for connection in open.locked({ Array($0.values) }) { connection.tick(now) }
            }
        }
    }

    deinit { end.set() }

    // How often it is looked for what has waited too long.
    private static let shortestRound = Duration.milliseconds(5)
    private static let longestRound = Duration.milliseconds(250)

    /// The port that everything completes on.
    public var port: CompletionPort { streams.port }

    /// The connections that stand.
    public var connections: [TransferConnection] { open.locked { Array($0.values) } }

    /// Writes that are waiting for the disk.
    public var pendingWrites: Int { writes.counters.inUse }

    /// Listens. Returns the address, with the port that was free.
    ///
    /// - Throws: EADDRINUSE when the address is taken.
    @discardableResult
    public func listen(on address: Address = .loopback()) throws(SystemError) -> Address {
        try streams.listen(on: address) { [self] _ in TransferConnection(self) }
    }

    /// Connects. What is to be sent before the connection stands waits for it.
    public func connect(to address: Address) throws(SystemError) -> TransferConnection {
        let connection = TransferConnection(self)
        try streams.connect(to: address, handler: connection)
        return connection
    }

    /// Takes over a connection that stands.
    public func adopt(_ socket: Socket) throws(SystemError) -> TransferConnection {
        let connection = TransferConnection(self)
        try streams.adopt(socket, handler: connection)
        return connection
    }

    func add(_ connection: TransferConnection) {
        open.locked { $0[ObjectIdentifier(connection)] = connection }
        events.opened(connection)
    }

    func remove(_ connection: TransferConnection) {
        open.locked { $0[ObjectIdentifier(connection)] = nil }
        events.closed(connection)
    }

    /// Closes every connection, waits until everything is back, and ends the threads. Not to be called by an observer.
    ///
    /// - Returns: Whether every counter is zero.
    @discardableResult
    public func stop() -> Bool {
        end.set()
        clock.join()
        return streams.stop() && writes.counters.inUse == 0 && reads.counters.inUse == 0
    }
}

/// What happens on the connections of a hub. Called by workers; no lock is held.
public struct TransferEvents: Sendable {
    /// A connection stands.
    public var opened: @Sendable (TransferConnection) -> Void = { _ in }
    /// It is over.
    public var closed: @Sendable (TransferConnection) -> Void = { _ in }
    /// A message that has nothing to do with files.
    public var words: @Sendable ([UInt8], TransferConnection) -> Void = { _, _ in }
    /// A file that nobody here had asked for has come, or has come to nothing.
    public var received: @Sendable (TransferResult) -> Void = { _ in }
    /// A file that was asked for has been sent, or has come to nothing.
    public var sent: @Sendable (TransferResult) -> Void = { _ in }

    /// Nobody wants to know.
    public init() {}
}

/// For a thread that has time to wait. The limits of the options bound each wait.
extension TransferConnection {
    /// Sends a file and waits until it is there, whole.
    @discardableResult
    public func sendAndWait(
        _ path: String, as name: String? = nil,
        progress: @escaping @Sendable (TransferProgress) -> Void = { _ in }
    ) throws(TransferError) -> TransferReceipt {
        try wait(progress) { observer throws(TransferError) in try send(file: path, as: name, observer) }
    }

    /// Fetches a file and waits until it is here, whole.
    @discardableResult
    public func fetch(
        _ name: String, into folder: String? = nil,
        progress: @escaping @Sendable (TransferProgress) -> Void = { _ in }
    ) throws(TransferError) -> TransferReceipt {
        try wait(progress) { observer throws(TransferError) in try ask(for: name, into: folder, observer) }
    }

    private func wait(
        _ progress: @escaping @Sendable (TransferProgress) -> Void,
        _ begin: (TransferObserver) throws(TransferError) -> Void
    ) throws(TransferError) -> TransferReceipt {
        let (result, isOver) = (Guarded<TransferResult?>(nil), Event(.manual))
        try begin(
            TransferObserver(progress: progress) { outcome in
                result.locked { $0 = outcome }
                isOver.set()
            })
        _ = isOver.wait(until: .never)
        return try result.locked { $0! }.get()
    }
}
