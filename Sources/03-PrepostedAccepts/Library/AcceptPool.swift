import CompletionPorts
import Glibc
import Kernel
import Timeline

/// Accepts that wait for clients: always enough of them, never too many, and none held for ever.
///
/// The listener belongs to a port. Workers give the pool the packets that come with the listener's key; the pool gives
/// them the clients, and posts the accepts again. A thread of its own looks after what no packet tells: silent
/// clients, back-off, shrinking. Every method may be called from any thread.
///
/// Win32 counterpart: what a server builds around `AcceptEx`, `FD_ACCEPT` and `SO_CONNECT_TIME`.
public final class AcceptPool: @unchecked Sendable {
    let listener: Socket
    /// The pool's limits.
    public let options: Options
    private let arrived: @Sendable (Arrival) -> Void
    private let notice = Overlapped()
    var keeper: Kernel.Thread?
    /// The keeper's alone.
    var rounds: JudgingRounds
    let monitor = Monitor()

    // MARK: What the monitor guards

    /// What is pending, and nothing else: an accept goes in before it is posted, and comes out when its packet is
    /// handled or its post has failed (I3.1).
    var pending: [Acceptance] = []
    /// Accepts that failed for want of something, and wait to be posted again.
    var resting: [Acceptance] = []
    /// Sockets without a connection, to be used again.
    private var fresh: [Socket] = []
    /// How many accepts are wanted now.
    var size: Int
    var count = Counters()
    var isStopping = false
    /// All accepts are taken by silent clients, others wait, and there may be no more accepts.
    var isShort = false
    var wasShortSinceLastLook = false
    private var noticeIsPosted = false
    /// Accepts that have come back with a client or a failure.
    private(set) var settled = 0
    /// At the last look: that number, and how many silent clients there were.
    var seenAtLastLook = (0, 0)
    private var lastTicket = 0
    private var backOff: Duration
    var retryAt = Deadline.never
    var nextLook: Deadline
    /// No silent client is ended before.
    var judgesAt = Deadline.now

    /// Makes a pool for a listener that is associated with a port already. Posts nothing before `start`.
    ///
    /// - Parameter arrived: Called by the worker that brings the packet, with every client that gets in.
    /// - Throws: EINVAL for limits that contradict each other.
    public init(
        on listener: Socket, options: Options = Options(), arrived: @escaping @Sendable (Arrival) -> Void
    ) throws(SystemError) {
        guard options.initial > 0, options.initial <= options.maximum, options.lowWater < options.initial,
            options.lowWater >= 0, options.receiveLength >= 0, options.lookInterval > .zero
        else { throw SystemError.invalid("make a pool of \(options.initial) to \(options.maximum) accepts") }
        self.listener = listener
        self.options = options
        self.arrived = arrived
        size = options.initial
        backOff = options.backOff
        nextLook = .after(options.lookInterval)
        rounds = JudgingRounds(every: options.lookInterval)
    }

    /// Posts the first accepts, and looks after them.
    ///
    /// - Throws: EAGAIN when the system gives no thread for that; then none is posted.
    public func start() throws(SystemError) {
        monitor.locked { nextLook = .after(options.lookInterval) }
        keeper = try Kernel.Thread("accept keeper") { self.keep() }
        grow(to: options.initial)
    }

    /// What has happened so far, and what is pending now.
    public var counters: Counters {
        let held = listener.acceptsAwaitingData
        return monitor.locked {
            var now = count
            now.held = held
            now.pending = pending.count
            now.resting = resting.count
            now.fresh = fresh.count
            now.posted = lastTicket
            return now
        }
    }

    /// How long the next pause will be. For tests.
    package var nextPause: Duration { monitor.locked { backOff } }

    // MARK: Packets

    /// Takes a packet, if it is one of the pool's: an accept, or the notice of a shortage. False if it is not.
    @discardableResult
    public func handle(_ packet: Packet, _ error: SystemError?) -> Bool {
        if packet.operation === notice {
            noticed(error)
            return true
        }
        guard let acceptance = packet.operation as? Acceptance else { return false }
        settle(acceptance, packet.bytes, error)
        return true
    }

    /// An accept has completed, one way or another. Whatever came of it, it is posted again (I3.2).
    private func settle(_ acceptance: Acceptance, _ bytes: Int, _ error: SystemError?) {
        let socket = acceptance.socket
        let isWelcome = monitor.locked {
            remove(acceptance)
            if error?.code != SystemError.cancelled { settled += 1 }
            if error == nil { backOff = options.backOff }
            let isClient = error == nil && (bytes > 0 || acceptance.receiveLength == 0)
            if isClient, !isStopping {
                count.accepted += 1
                return true
            }
            if error == nil, !isClient { count.empty += 1 }
            return false
        }
        if isWelcome {
            var client = AcceptedSocket(socket)
            client.belongsToItsListener()
            let result = acceptance.result
            arrived(
                Arrival(
                    client: client, local: result.local, remote: result.remote,
                    firstData: result.firstData(bytes)))
        } else {
            // A client may be in it, whatever the packet says: closing is never left out (I3.8).
            let hadClient = socket.descriptor >= 0
            socket.close()
            if let error, error.code != SystemError.cancelled {
                monitor.locked { count.failed += 1 }
                // A client that went away costs nothing. Anything else is ours, and will not be better at once.
                if !hadClient { return rest(acceptance) }
            }
        }
        post(acceptance)
        if isWelcome { resumeOne() }
        keepEnough()
    }

    /// A client has come for which no accept was pending, or at least none was a moment ago.
    private func noticed(_ error: SystemError?) {
        monitor.locked {
            noticeIsPosted = false
            if isStopping { monitor.broadcast() }
        }
        if error == nil { keepEnough() }
    }

    // MARK: Posting

    /// Posts an accept, unless there are enough. It is counted as pending before it can complete, and not any more
    /// when its post has failed (I3.1).
    private func post(_ acceptance: Acceptance) {
        let isWanted = monitor.locked {
            guard !isStopping, pending.count < size else { return false }
            acceptance.socket = fresh.popLast() ?? Socket()
            lastTicket += 1
            acceptance.ticket = lastTicket
            acceptance.place = pending.count
            pending.append(acceptance)
            count.peak = max(count.peak, pending.count)
            return true
        }
        guard isWanted else { return }
        Recorder.label(acceptance.identity, "accept \(acceptance.ticket)")
        do throws(SystemError) {
            try acceptance.post(on: listener)
        } catch {
            monitor.locked {
                remove(acceptance)
                count.refusedPosts += 1
            }
            rest(acceptance)
        }
    }

    /// Under the monitor.
    private func remove(_ acceptance: Acceptance) {
        let place = acceptance.place
        pending.swapAt(place, pending.count - 1)
        pending[place].place = place
        pending.removeLast()
        acceptance.place = -1
        if isStopping { monitor.broadcast() }
    }

    /// No more than the low-water mark wait for clients: the pool grows in a burst, up to its maximum (I3.3). And the
    /// notice is posted again, as long as it would not come back at once.
    private func keepEnough() {
        let held = listener.acceptsAwaitingData
        let (wanted, asks) = monitor.locked { () -> (Int, Bool) in
            guard !isStopping, resting.isEmpty else { return (0, false) }
            let waiting = pending.count - held
            var wanted = 0
            if waiting <= 0 || waiting <= options.lowWater && pending.count >= size {
                wasShortSinceLastLook = true
                if size < options.maximum {
                    count.shortages += 1
                    wanted = min(options.maximum, 2 * size)
                } else if waiting <= 0, !isShort {
                    isShort = true
                    monitor.broadcast()
                }
            } else {
                isShort = false
            }
            let asks = !noticeIsPosted && (wanted > 0 || waiting > 0)
            if asks { noticeIsPosted = true }
            return (wanted, asks)
        }
        if wanted > 0 { grow(to: wanted) }
        guard asks else { return }
        do throws(SystemError) {
            try listener.noticeShortage(notice)
        } catch {
            monitor.locked {
                noticeIsPosted = false
                if isStopping { monitor.broadcast() }
            }
        }
    }

    private func grow(to wanted: Int) {
        let missing = monitor.locked {
            size = max(size, wanted)
            return size - pending.count - resting.count
        }
        for _ in 0..<max(0, missing) { post(Acceptance(receiveLength: options.receiveLength)) }
        if missing > 0 { keepEnough() }
    }

    // MARK: Back-off

    /// Puts an accept aside, to be posted again after a while (I3.9).
    private func rest(_ acceptance: Acceptance) {
        monitor.locked {
            guard !isStopping else { return }
            if resting.isEmpty { count.pauses += 1 }
            resting.append(acceptance)
            retryAt = .after(backOff)
            backOff = min(backOff * 2, options.longestBackOff)
            monitor.broadcast()
        }
    }

    /// Posts one of those that were put aside. One at a time: what one of them lacks, the others lack as well.
    func resumeOne() {
        let acceptance = monitor.locked { () -> Acceptance? in
            guard let acceptance = resting.popLast() else { return nil }
            retryAt = resting.isEmpty ? .never : .after(backOff)
            return acceptance
        }
        guard let acceptance else { return }
        post(acceptance)
        keepEnough()
    }

    /// To be called when a connection's descriptor is closed: accepting may have waited for it.
    public func descriptorClosed() { resumeOne() }

    /// Takes a socket whose connection has been disconnected for reuse. The next accept gets it.
    ///
    /// - Returns: false when it has enough of them, or is stopping. Then the socket is still the caller's.
    @discardableResult
    public func reuse(_ socket: Socket) -> Bool {
        let isTaken = monitor.locked {
            guard !isStopping, fresh.count < options.maximum else { return false }
            fresh.append(socket)
            count.reused += 1
            return true
        }
        resumeOne()
        return isTaken
    }

    // MARK: The end

    /// Stops accepting: closes the listener, and returns when every accept has come back and every client that got in
    /// during that time is closed. Workers have to go on handing over packets until then.
    public func stop() {
        monitor.locked {
            isStopping = true
            resting = []
            monitor.broadcast()
        }
        keeper?.join()
        listener.close()
        let deadline = Deadline.after(AcceptPool.patience)
        monitor.locked {
            while !pending.isEmpty || noticeIsPosted, monitor.wait(until: deadline) {}
            fresh = []
        }
    }

    private static let patience = Duration.seconds(10)
}
