import Contexts
import Glibc
import Kernel

/// A place among the sends of a connection: what has the earlier place is sent first, however long that takes. (I5.6)
public struct SendTicket: Sendable {
    let number: SequenceNumber
}

/// The sending side of a connection: what may be sent, and in which order it is posted.
///
/// A value without a lock, that belongs to something with one. The system sends what is posted on one socket in the order of
/// the posts, each whole before the next: so sends are in order when their numbers are given and they are posted in that
/// order, under one lock. (I5.6)
struct OrderedSender: ~Copyable {
    /// Contexts that send, and tickets that are out, at most.
    let limit: Int
    /// Chains of chunks that wait for their turn; nil where a ticket was given up.
    private var window: ReorderWindow<Chunk?>
    private var next = SequenceNumber(0)
    /// Contexts that send, and tickets that are out.
    private(set) var pending = 0
    /// Operations that are posted.
    private(set) var posted = 0
    private(set) var isFinishing = false
    private(set) var isShutDown = false
    /// Sends that have completed, and whose handler wants to hear of it.
    var completed = ChunkQueue()

    /// - Parameter returns: Chunks that may be on their way back besides: behind an open ticket they need places, too.
    init(limit: Int, returns: Int) {
        self.limit = limit
        window = ReorderWindow(capacity: limit + returns)
    }

    /// Whether so many more contexts may be used for sending: nil, or the system's number for why not.
    func refusal(of contexts: Int, hasTicket: Bool = false) -> Int32? {
        if isFinishing, !hasTicket { return ESHUTDOWN }
        if pending + contexts > limit { return ENOBUFS }
        return !hasTicket && window.expected.distance(to: next) >= window.capacity ? ENOBUFS : nil
    }

    /// Takes the next place, for what will be sent later.
    mutating func takeTicket() -> SendTicket {
        pending += 1
        defer { next = next.next }
        return SendTicket(number: next)
    }

    /// Puts a chain to its place, or nothing where a ticket is given up. What is next is to be posted then.
    ///
    /// - Parameter contexts: How many the chain has; a ticket has been counted as one.
    mutating func insert(_ chain: Chunk?, _ contexts: Int, _ ticket: SendTicket?) {
        pending += ticket == nil ? contexts : contexts - 1
        let place = window.insert(chain, ticket?.number ?? next)
        precondition(place == .taken, "a ticket or a chunk used twice")
        if ticket == nil { next = next.next }
    }

    /// Whether a chain may be posted without a stop: nothing waits, and it has no ticket.
    mutating func passes(_ contexts: Int, _ ticket: SendTicket?) -> Bool {
        guard ticket == nil, window.expected == next, window.pass() else { return false }
        pending += contexts
        next = next.next
        return true
    }

    /// The next in order: a chain, or nothing where a ticket was given up; nil while it is missing.
    mutating func takeNext() -> Chunk?? { window.takeNext() }

    /// Whatever waits, in its order: for the end. (I5.7)
    mutating func takeEarliest() -> Chunk?? { window.takeEarliest() }

    mutating func wasPosted() { posted += 1 }

    /// A posted send has completed, or its post has failed.
    mutating func wasCompleted() { posted -= 1 }

    /// A chunk that was taken from the pool for sending is not needed any more.
    mutating func contextIsFree() { pending -= 1 }

    mutating func finish() { isFinishing = true }

    /// Whether everything has been sent and the end is to be said: once.
    mutating func mayShutDown() -> Bool {
        guard isFinishing, !isShutDown, posted == 0, pending == 0 else { return false }
        isShutDown = true
        return true
    }
}
