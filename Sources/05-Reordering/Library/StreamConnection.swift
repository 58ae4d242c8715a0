import CompletionPorts
import Contexts
import Glibc
import Kernel
import Timeline

/// A connection with several reads pending, whose bytes reach its handler in order.
///
/// One lock guards everything that the fields say. It is held while a number is given and the read posted, and while the
/// window is changed; never while the handler is called. (I5.1, I5.2) Any thread may call it.
public final class StreamConnection: @unchecked Sendable {
    /// Its name.
    public let id = ConnectionID.next()
    /// The connection itself, for options and addresses. Posting and closing are not the caller's.
    public let socket: Socket
    let hub: StreamTable
    let lock = Lock()

    // MARK: What the lock guards

    /// Let go when the connection is over, so that handler and connection may refer to each other.
    var handler: (any StreamHandler)?
    /// The number of the next read.
    private var nextRead: SequenceNumber
    /// Reads that have completed and are not yet handled. (I5.3)
    private var reads: ReorderWindow<Chunk>
    /// Reads that came before an earlier one.
    private var early = 0
    /// A worker is handing things to the handler. Whoever comes meanwhile leaves what he has in the window. (I5.2)
    private var isDraining = false
    /// Operations whose packets have not been taken in.
    var operations = 0
    private(set) var isOpen = false
    private(set) var hasEnded = false
    /// Why it is over; nil while it is not.
    private(set) var reason: CloseReason?
    /// This side has closed it, so nothing is handed to the handler any more.
    private var isDiscarding = false
    private var isAnnounced = false
    var isInTable = false

    // What is to be sent, in `Sending.swift`.
    /// Chains of chunks that wait for their turn; nil where a ticket was given up.
    var sends: ReorderWindow<Chunk?>
    var nextTicket = SequenceNumber(0)
    /// Contexts that send, and tickets that are out.
    var pendingSends = 0
    /// Operations that send.
    var sending = 0
    var isFinishing = false
    var isShutDown = false
    /// Sends that are through, and whose handler wants to hear of it.
    var notices = ChunkQueue()

    init(_ socket: Socket, _ hub: StreamTable) {
        self.socket = socket
        self.hub = hub
        nextRead = hub.options.firstNumber
        reads = ReorderWindow(capacity: hub.options.pendingReads, first: nextRead)
        sends = ReorderWindow(capacity: hub.options.maximumPendingSends + hub.options.pendingReads)
    }

    deinit { if isInTable { hub.wasReleased() } }

    /// Why it is over; nil while it is open.
    public var closeReason: CloseReason? { lock.locked { reason } }

    /// What its window of reads has seen.
    public var window: WindowCounters {
        lock.locked { WindowCounters(waiting: reads.count, mostWaiting: reads.peak, early: early) }
    }

    /// What a window of reads has seen.
    public struct WindowCounters: Sendable, Equatable {
        /// Chunks in it now.
        public var waiting = 0
        /// The most that ever were, the one whose turn it is included: never more than the pending reads. (I5.3)
        public var mostWaiting = 0
        /// Chunks that came before an earlier one.
        public var early = 0
    }

    // MARK: Reading

    /// The connection stands: tells the handler, and posts the first reads.
    func start() {
        lock.lock()
        // Nobody else drains before `opened` has returned.
        isDraining = true
        isOpen = true
        withHandler { $0.opened(self) }
        for _ in 0..<hub.options.pendingReads where reason == nil {
            guard let chunk = hub.chunks.take() else {
                shut(.outOfResources)
                break
            }
            chunk.connection = self
            chunk.isReader = true
            post(chunk)
        }
        // Somebody may have asked for it before there was a connection.
        finishIfDone()
        isDraining = false
        drain()
    }

    /// Under the lock: gives a read its number and posts it. In one critical section, so the order of the numbers is the
    /// order of the posts, and that is the order in which the system fills them. (I5.1)
    private func post(_ chunk: Chunk) {
        guard reason == nil, !hasEnded else { return retire(chunk) }
        chunk.number = nextRead
        nextRead = nextRead.next
        Recorder.label(chunk.identity, "read \(chunk.number)")
        hub.options.probe?.numbered(chunk)
        operations += 1
        do throws(SystemError) {
            try socket.receive(chunk, into: chunk.memory)
        } catch {
            // No packet will come. The number is given, so the failure takes its place in the stream. (I5.2)
            operations -= 1
            chunk.failure = error.code
            if hub.options.ordersReads { return wait(chunk) }
            shut(CloseReason(error))
            retire(chunk)
        }
    }

    /// Under the lock: puts a read that is through to where it waits for its turn.
    private func wait(_ chunk: Chunk) {
        if chunk.number != reads.expected {
            early += 1
            Recorder.note("read \(chunk.number) came before read \(reads.expected)", of: chunk.identity)
        }
        hub.options.probe?.placed(chunk)
        // There are no more numbers out than the window has room for.
        let place = reads.insert(chunk, chunk.number)
        precondition(place == .taken, "a read came twice")
    }

    /// Nobody has a share in the chunk any more.
    func readAgain(_ chunk: Chunk) {
        lock.lock()
        post(chunk)
        leave()
    }

    /// Under the lock: a read chunk goes home.
    private func retire(_ chunk: Chunk) {
        chunk.connection = nil
        chunk.isReader = false
        chunk.failure = 0
        hub.chunks.giveBack(chunk)
    }

    // MARK: Packets

    /// A worker has brought a packet of this connection.
    func take(_ chunk: Chunk, _ bytes: Int, _ error: Int32) {
        hub.options.probe?.arrived(chunk)
        lock.lock()
        guard chunk.kind == .receive else {
            operations -= 1
            sendIsThrough(chunk, error)
            return drain()
        }
        chunk.count = bytes
        chunk.failure = error
        // Without order, whoever comes first goes first: what happens then is what this chapter is about.
        if hub.options.ordersReads { wait(chunk) } else { deliver(chunk) }
        operations -= 1
        drain()
    }

    /// A connect has completed, or was not accepted.
    func connected(_ error: SystemError?) {
        lock.lock()
        operations -= 1
        if let error {
            shut(CloseReason(error))
            return leave()
        }
        lock.unlock()
        start()
    }

    /// Somebody has left something here that a worker has to see to.
    func look() {
        lock.lock()
        drain()
    }

    /// With the lock, and returns without it: hands over whatever is next, until nothing is. One worker at a time does
    /// this. (I5.2)
    private func drain() {
        guard !isDraining else { return lock.unlock() }
        isDraining = true
        while true {
            if let chunk = reads.takeNext() {
                deliver(chunk)
            } else if let chunk = notices.popFirst() {
                let token = chunk.token!
                giveBack(chunk)
                if !isDiscarding { withHandler { $0.sent(token, on: self) } }
            } else if isOver {
                announce()
            } else {
                break
            }
        }
        isDraining = false
        lock.unlock()
    }

    /// Under the lock, and returns with it: calls the handler without it.
    private func withHandler(_ body: (any StreamHandler) -> Void) {
        let handler = handler
        lock.unlock()
        if let handler { body(handler) }
        lock.lock()
    }

    /// Under the lock, and returns with it: a read whose turn it is. Failure and end come in their turn, too: what was
    /// sent before them has been handed over by now. (I5.2)
    private func deliver(_ chunk: Chunk) {
        if chunk.failure != 0 {
            shut(CloseReason(SystemError(chunk.failure, attempted: "receive")))
            return retire(chunk)
        }
        if chunk.count == 0 {
            // Each pending read comes back with 0 bytes; only the first of them is news.
            let isFirst = !hasEnded
            hasEnded = true
            retire(chunk)
            if isFirst, !isDiscarding { withHandler { $0.ended(self) } }
            return finishIfDone()
        }
        guard !isDiscarding else { return retire(chunk) }
        chunk.shares.store(1, ordering: .relaxed)
        withHandler { $0.received(chunk, on: self) }
        dropShare(of: chunk)
    }

    /// Under the lock: somebody who had a chunk that was read has done with it.
    func dropShare(of chunk: Chunk) {
        if chunk.dropShare() { post(chunk) }
    }

    // MARK: The end

    /// Ends the connection at once, by this side's decision: what is pending is cancelled, and nothing more is received.
    /// The first reason counts. `closed` comes when everything is back.
    public func close(_ reason: CloseReason = .cancelled) {
        lock.lock()
        isDiscarding = true
        shut(reason)
        leave()
    }

    /// Under the lock: the end has come. What is pending comes back as cancelled; what had arrived before is still handed
    /// over, unless this side has closed.
    func shut(_ reason: CloseReason) {
        guard self.reason == nil else { return }
        self.reason = reason
        socket.close()
        // They would wait for ever for those before them. (I5.7)
        while let chain = sends.takeEarliest() { postAll(chain) }
    }

    /// Nothing will come any more, and everything that came has been handed over. (I5.7)
    private var isOver: Bool { reason != nil && operations == 0 && !isAnnounced && reads.count == 0 }

    /// Under the lock, and returns with it: the last call of the handler.
    private func announce() {
        isAnnounced = true
        let (reason, last) = (reason!, handler)
        handler = nil
        lock.unlock()
        last?.closed(self, reason)
        hub.remove(self, reason)
        lock.lock()
    }

    /// With the lock, and returns without it: for those who are no worker, or in the middle of a call. What there is to
    /// hand over is handed over by a worker.
    func leave() {
        let isNeeded = !isDraining && (reads.hasNext || !notices.isEmpty || isOver)
        lock.unlock()
        if isNeeded { hub.nudge(self) }
    }
}
