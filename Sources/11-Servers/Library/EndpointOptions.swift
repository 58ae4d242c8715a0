import CompletionPorts
import Contexts
import FileTransfer
import Kernel
import LockedMemory
import PrepostedAccepts
import Reordering

/// The limits and choices of an endpoint, the same for a server and a client. Each has a default; none is without a bound.
public struct EndpointOptions: Sendable {
    // MARK: Who is let in

    /// Connections at a time, those that this side has made included. One more is told so, and closed.
    public var maximumConnections = 12_000
    /// Connections at a time from one address; nil for as many as there may be at all.
    public var maximumPerAddress: Int?
    /// Who is not let in, from the start on.
    public var bans = BanList()
    /// What a banned client gets to see.
    public var refusal = BanRefusal.silent
    /// The accepts that wait for clients, at each listener.
    public var accepts: AcceptPool.Options
    /// Clients that the system keeps for the accepts.
    public var backlog = 4_096

    // MARK: Threads

    /// Threads that handle packets, how many of them may run at a time (0: as many as processors), packets that each takes
    /// at once.
    public var ioWorkers = 2, concurrency = 0, batch = 1
    /// Threads for jobs; they may be changed later.
    public var logicalWorkers = 1
    /// Jobs that wait, of all and of one client; nil for a quarter.
    public var jobCapacity = 1_024, jobsPerClient: Int?

    // MARK: Memory

    /// Buffers and contexts that are kept while they are not in use: 0 for none, `.max` for all.
    public var maximumFreeBuffers = 1_024, maximumFreeContexts = 1_024
    /// Reads that a connection has pending, 1 to 64.
    public var pendingReads = 2
    /// Bytes that are read at a time, and the most bytes of a message of length-prefixed frames.
    public var bufferSize = 4_096, maximumPackage = 8_192
    /// How connections wait for bytes: with a buffer each, without, or as their number allows.
    public var reading = ReadingChoice.adaptive
    /// Pages that pending reads may lock, and what stands behind that.
    public var budgetPages = 8_192, locking = PageBudget.Locking.counted

    // MARK: Flow and time

    /// Sends that a session has under way before something is done about it, and what.
    public var maximumPendingSends = 20, whenFull = WhenFull.pausesReading
    /// How long what may take.
    public var limits = Limits()
    /// Whether and how the system asks silent peers.
    public var keepAlive: KeepAlive? = KeepAlive()

    // MARK: What it does

    /// Files beside the messages; nil for none. Their stream options are not looked at: they are these.
    public var files: TransferOptions?
    /// Whether messages can be acknowledged by the program at the other end. Both sides have to say so.
    public var acknowledges = false
    /// What is told to the handler's `log`.
    public var log = LogLevel.warnings
    /// The port's own choices, the driver among them.
    public var port = CompletionPort.Options()

    /// The defaults.
    public init() {
        accepts = AcceptPool.Options()
        // A client need not say anything first; and a silent one has limits of its own, below.
        accepts.receiveLength = 0
    }
}

/// What a banned client gets to see.
public enum BanRefusal: Sendable, CaseIterable {
    /// Nothing, where the system permits that: its first packet is dropped. Elsewhere a reset.
    case silent
    /// A reset.
    case reset
    /// Words, and then the end.
    case words
}

/// What happens when a session has as many sends under way as it may have.
public enum WhenFull: Sendable, CaseIterable {
    /// It is not read from until half of them are over. What its handler still has to answer is sent. Not for both sides of a
    /// session, if both send unasked: two that do not read wait for each other.
    case pausesReading
    /// One more send throws ENOBUFS.
    case refuses
}

/// How connections wait for bytes; see `BudgetedReceives.Choice`.
public enum ReadingChoice: Sendable, CaseIterable {
    /// With buffers, or without.
    case buffered, zeroByte
    /// With buffers while few connections stand, without them while many do.
    case adaptive
}

/// What is logged: nothing, what somebody may have to do something about, or each client as well.
public enum LogLevel: Int, Sendable, CaseIterable {
    case none, warnings, information
}

/// How long what may take; nil for as long as it likes.
public struct Limits: Sendable, Equatable {
    /// From the connection to its first whole message or piece of a file, or until `Session.welcome`.
    public var handshake: Duration? = .seconds(10)
    /// Without a byte from the other side.
    public var idle: Duration?
    /// From the first byte of a message to its last.
    public var message: Duration? = .seconds(30)
    /// Without a byte taken by the other side, while something is to be sent.
    public var stall: Duration? = .seconds(60)
    /// From the last byte sent until the other side has ended, too.
    public var close = Duration.seconds(5)
    /// What sessions have at the end of all. The workers' handlers are waited for without a limit.
    public var stop = Duration.seconds(10)

    /// The defaults.
    public init() {}

    /// How often the sessions are looked at: four times in the shortest of them, at most two hundred times a second.
    var round: Duration {
        let shortest = [handshake, idle, message, stall, close].compactMap { $0 }.min()!
        return min(max(.nanoseconds(Int64(shortest / .nanoseconds(4))), .milliseconds(5)), .milliseconds(250))
    }
}

/// The limits of time that end a session.
public enum Limit: String, Sendable, CaseIterable {
    case handshake, idle, message, stall, close
}

/// Why a session is over. What the system said is within; the rest is this side's decision.
public enum EndReason: Hashable, Sendable, CustomStringConvertible {
    /// The connection ended by itself.
    case closed(CloseReason)
    /// Something has taken too long.
    case timedOut(Limit)
    /// A message was longer than a message may be, or no message at all.
    case limit
    /// Its address was banned while it stood.
    case banned
    /// The endpoint was stopped.
    case stopping
    /// The program has ended it.
    case kicked

    /// In a word or two.
    public var description: String {
        switch self {
        case .closed(let reason): reason.description
        case .timedOut(let limit): "timed out (\(limit.rawValue))"
        case .limit: "not a message"
        case .banned: "banned"
        case .stopping: "stopping"
        case .kicked: "kicked"
        }
    }
}

/// Why a client was not let in.
public enum Refusal: String, Hashable, Sendable, CaseIterable {
    /// There are as many connections as there may be, or as many from that address.
    case limit, perAddress
    /// It is on the list of the banned.
    case banned
    /// The program did not want it.
    case handler
    /// It could not be taken in: no descriptor, no memory, or the end.
    case resources

    /// What the client is told.
    func words(_ options: EndpointOptions) -> String {
        switch self {
        case .limit: "full: \(options.maximumConnections) connections"
        case .perAddress: "full: \(options.maximumPerAddress ?? 0) connections from one address"
        case .banned: "banned"
        case .handler, .resources: "not now"
        }
    }
}

/// What went wrong with the start or the end of an endpoint.
public enum EndpointError: Error, Equatable, Sendable, CustomStringConvertible {
    /// It is running, or another thread is starting it.
    case alreadyStarted
    /// It is not running.
    case notStarted
    /// A callback would wait for its own return.
    case wouldWaitForItself
    /// The system said no. Nothing is left of the attempt.
    case failed(SystemError)

    /// One line.
    public var description: String {
        switch self {
        case .alreadyStarted: "it is started already; stop it first"
        case .notStarted: "it is not started; start it first"
        case .wouldWaitForItself: "a callback cannot stop what it is called by; let another thread do it"
        case .failed(let error): error.description
        }
    }
}
