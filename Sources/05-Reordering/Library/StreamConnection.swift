import CompletionPorts
import Contexts
import Glibc
import Kernel
import Timeline

/// A connection with several reads pending, whose bytes reach its handler in order.
///
/// It is a receiver and a sender with one lock around both. The lock is held while a number is given and the read posted, and
/// while a window is changed; never while the handler is called. (I5.1, I5.2) Any thread may call it.
public final class StreamConnection: PacketOwner, @unchecked Sendable {
    // In memory the fields lie in this order, and what each packet touches comes first: with thousands of connections every line
    // of the cache counts.

    /// The connection itself, for options. Posting and closing are not the caller's.
    public let socket: Socket
    let hub: StreamHub
    let lock = Lock()

    // MARK: What the lock guards

    /// A worker is handing things to the handler. Others that come meanwhile leave what they have in the window. (I5.2)
    private(set) var isDraining = false
    /// It is to finish as soon as nothing is being handed to the handler.
    var mustFinish = false
    /// It does not stand yet: its handler is being made, or its connect is pending.
    private var isBeginning = true
    private(set) var isOpen = false
    /// What came with the connection has its numbers.
    private(set) var isReading = false
    /// This side has closed it, so nothing is handed to the handler any more.
    private var isDiscarding = false
    private var isAnnounced = false
    /// Why it is over; nil while it is not.
    private(set) var reason: CloseReason?
    /// Let go when the connection is over, so that handler and connection may refer to each other.
    var handler: (any StreamHandler)?
    var receiver: OrderedReceiver
    var sender: OrderedSender
    /// What happens as soon as nothing of it is under way; see `rest`.
    var atRest: Rest?
    package var counted = Traffic()
    /// Where its packets go. It changes at rest, or when no other thread has the connection yet.
    package var currentPort: CompletionPort
    /// Packets that are on their way to have a worker look at it.
    private(set) var wakes = 0
    /// How many want it to stay with its port.
    var stays = 0
    /// The operation of a connect, and after it of the waits: it has no number.
    private(set) var signal: StreamOperation?
    private var local: Address?
    /// When it is closed, and why then: for a connect, and for an end, that take too long. In nanoseconds; 0 for never.
    var limit: (at: UInt64, reason: CloseReason) = (0, .cancelled)

    // MARK: What never changes

    /// Its name.
    public let id = ConnectionID.next()
    /// The address of the other end, for ever: also when the connection is over. Nil if the system did not say.
    public let remoteAddress: Address?
    let registry: ConnectionRegistry<StreamConnection>
    /// Set before another thread has a reference.
    var isRegistered = false

    init(
        _ socket: Socket, _ hub: StreamHub, _ registry: ConnectionRegistry<StreamConnection>,
        _ handler: (any StreamHandler)? = nil, local: Address? = nil, remote: Address?
    ) {
        self.socket = socket
        self.hub = hub
        self.registry = registry
        self.handler = handler
        self.local = local
        currentPort = hub.port
        remoteAddress = remote
        receiver = OrderedReceiver(
            limit: hub.options.pendingReads, first: hub.options.firstNumber,
            maximumRoom: hub.options.maximumReadSize, growsUpTo: hub.options.growsUnasked ? .max : 0)
        sender = OrderedSender(limit: hub.options.maximumPendingSends, returns: hub.options.pendingReads)
    }

    deinit { if isRegistered { registry.released() } }

    /// Where its packets go. Other handles that belong to this connection, such as files, go there too. Chapter 12 gives
    /// it another one; code with such handles calls `stay` first.
    public var port: CompletionPort { lock.locked { currentPort } }

    /// The address of this end, for ever; nil before `opened`.
    public var localAddress: Address? { lock.locked { local } }

    /// Why it is over; nil while it is open.
    public var closeReason: CloseReason? { lock.locked { reason } }

    // MARK: The beginning

    /// The connection stands: tells the handler, and posts the first reads. What came with the accept is the first of the
    /// stream.
    func start(_ handler: any StreamHandler, with first: UnsafeRawBufferPointer? = nil) {
        lock.lock()
        self.handler = handler
        // No worker drains before `opened` has returned.
        isDraining = true
        isBeginning = false
        isOpen = true
        counted.since = monotonicNanoseconds()
        withHandler { $0.opened(self) }
        if reason == nil, let first { receiver.begin(with: first, self) }
        // From here on others may have it read, too.
        isReading = true
        if currentPort !== hub.port { return goOnThere() }
        replan()
        // It may have been asked for before there was a connection.
        finishIfDone()
        isDraining = false
        drain()
        hub.settle()
    }

    /// Posts the connect.
    func connect(to address: Address) {
        lock.lock()
        do throws(SystemError) {
            try socket.connect(signalOperation(), to: address)
        } catch {
            isBeginning = false
            shut(CloseReason(error))
        }
        leave()
    }

    private func connected(_ error: SystemError?) {
        lock.lock()
        limit.at = 0
        if let error { shut(CloseReason(error)) }
        guard reason == nil, let handler else {
            isBeginning = false
            return drain()
        }
        local = try? socket.localAddress
        lock.unlock()
        start(handler)
    }

    /// Under the lock: the one operation without a number. While it is pending it keeps this connection.
    func signalOperation() -> StreamOperation {
        let operation = signal ?? StreamOperation()
        signal = operation
        operation.connection = self
        return operation
    }

    // MARK: Packets

    /// A worker has brought a packet of this connection. What it is for, the operation says.
    public override func handle(_ packet: Packet, _ error: SystemError?) {
        // Nothing else is posted under this key.
        let operation = unsafeDowncast(packet.operation!, to: StreamOperation.self)
        if operation.isChunk {
            let chunk = unsafeDowncast(operation, to: Chunk.self)
            if packet.isPosted { granted(chunk) } else { completed(chunk, packet.bytes, packet.errorCode) }
        } else {
            operation.connection = nil
            if packet.isPosted {
                wakeCame()
            } else if operation.kind == .connect {
                connected(error)
            } else {
                waitCompleted(packet.errorCode)
            }
        }
        hub.settle()
    }

    private func completed(_ chunk: Chunk, _ bytes: Int, _ error: Int32) {
        hub.options.probe?.arrived(chunk)
        lock.lock()
        if chunk.kind == .receive {
            hub.options.probe?.placed(chunk)
            receiver.completed(chunk, bytes, error)
        } else {
            sendCompleted(chunk, bytes, error)
            finishIfDone()
        }
        drain()
    }

    private func waitCompleted(_ error: Int32) {
        hub.options.probe?.readable(self)
        lock.lock()
        receiver.waitCompleted(error)
        replan()
        drain()
    }

    /// The slot in the policy's line has been served.
    func granted(_ slot: Chunk) {
        lock.lock()
        receiver.granted(slot, self, hub.receives, mayWait: !isDraining)
        drain()
    }

    /// Something has been left here that a worker has to see to.
    func wakeCame() {
        lock.lock()
        wakes -= 1
        replan()
        // It may have been asked for before there was a connection.
        finishIfDone()
        drain()
    }

    /// With the lock, and returns without it: hands over whatever is next, until nothing is, or until it is the turn of other
    /// connections. One worker at a time does this. (I5.2)
    private func drain() {
        guard !isDraining else { return lock.unlock() }
        isDraining = true
        var hasDelivered = false
        for _ in 0..<StreamConnection.turnsAtMost {
            if let chunk = receiver.takeNext() {
                deliver(chunk)
                hasDelivered = true
            } else if let code = receiver.takeWaitFailure() {
                shut(CloseReason(SystemError(code, attempted: "receive")))
            } else if let chunk = sender.completed.popFirst() {
                let token = chunk.token!
                giveBack(chunk)
                if !isDiscarding { withHandler { $0.sent(token, on: self) } }
            } else if mustFinish {
                finishIfAsked()
            } else if receiver.isDue(afterDelivery: exchange(&hasDelivered, with: false)) {
                receiver.replan(self, hub.receives, mayWait: true)
            } else if isOver {
                announce()
            } else if isAtRest {
                return goOnFromRest()
            } else {
                isDraining = false
                return lock.unlock()
            }
        }
        goOnThere()
    }

    /// With the lock, and returns without it, in the middle of handing over: what has waited for it is done. What comes
    /// after that is for the workers of the port that the connection has then.
    private func goOnFromRest() {
        if let afterwards = endRest(true) {
            lock.unlock()
            afterwards()
            lock.lock()
        }
        goOnThere()
    }

    /// What one packet may have a worker do. Immediate reads and sends that complete in their posts need no packet each, so a
    /// stream that never runs dry would keep its worker for good.
    private static let turnsAtMost = 16

    /// With the lock, and returns without it, in the middle of handing over: the rest is for a worker of the connection's own
    /// port, when it has come by what is queued there. (If, after a move, this one posted reads there, it might bring what
    /// completes at once behind what that one brings.)
    private func goOnThere() {
        isDraining = false
        wakes += 1
        let port = currentPort
        lock.unlock()
        hub.wake(self, at: port)
        hub.settle()
    }

    /// Under the lock: a worker is calling the handler, or is about to.
    var isBusy: Bool { isDraining || isBeginning }

    /// Under the lock, and returns with it: calls the handler without it.
    private func withHandler(_ body: (any StreamHandler) -> Void) {
        guard let handler else { return }
        lock.unlock()
        body(handler)
        lock.lock()
    }

    /// Under the lock, and returns with it: a read whose turn it is. Failure and end come in their turn, too: what was
    /// sent before them has been handed over by now. (I5.2)
    private func deliver(_ chunk: Chunk) {
        Recorder.turn(chunk.identity)
        if chunk.failure != 0 {
            shut(CloseReason(SystemError(chunk.failure, attempted: "receive")))
        } else if chunk.place == .gap || isDiscarding {
            // The handler does not hear of it.
        } else if chunk.count == 0 {
            // Each pending read comes back with 0 bytes; only the first of them is news.
            if reason == nil, receiver.end() { withHandler { $0.ended(self) } }
            finishIfDone()
        } else {
            counted.received(chunk.count)
            chunk.shares.store(1, ordering: .relaxed)
            withHandler { $0.received(chunk, on: self) }
            if !chunk.dropShare() { return }
        }
        replan(with: chunk)
    }

    /// Under the lock: posts as much as may be.
    func replan(with slot: Chunk? = nil) {
        guard isReading else { return }
        receiver.replan(self, hub.receives, with: slot, mayWait: !isDraining)
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
        _ = endRest(false)
        socket.close()
        receiver.stop(self, hub.receives)
        // They would wait for ever for those before them. (I5.7)
        while let chain = sender.takeEarliest() { chain.map(postAll) }
    }

    /// Nothing will come any more, and everything that came has been handed over. (I5.7)
    private var isOver: Bool {
        reason != nil && !isAnnounced && !isBeginning && receiver.isIdle && sender.posted == 0
    }

    /// Under the lock, and returns with it: the last call of the handler.
    private func announce() {
        isAnnounced = true
        let reason = reason!
        lock.unlock()
        tell(reason)
        hub.remove(self, reason)
        lock.lock()
    }

    /// Without the lock: whatever goes with the handler, such as a chunk that it keeps, may need it.
    private func tell(_ reason: CloseReason) {
        lock.locked { handler.take() }?.closed(self, reason)
    }

    /// With the lock, and returns without it: for threads that are no workers, or in the middle of a call. What there is to
    /// hand over is handed over by a worker: by the one that drains, or that has the packet which is on its way, or by another.
    func leave() {
        if !isDraining, wakes == 0, receiver.hasNext || !sender.completed.isEmpty || isOver || isAtRest {
            wakes += 1
            let port = currentPort
            lock.unlock()
            hub.wake(self, at: port)
        } else {
            lock.unlock()
        }
        hub.settle()
    }
}
