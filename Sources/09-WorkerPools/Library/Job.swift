import Contexts
import Kernel
import Reordering
import Synchronization

/// Work that is no I/O: what is to be done, for which client, and the place of the answer.
///
/// It holds its client's *name*, never the connection: by the time it is done the client may be gone, and its descriptor
/// may be another client's. (I9.4) Win32 counterpart: none; the article that this book goes along with has a `JobItem`.
public struct Job: Sendable {
    /// What is to be done, for `process` to tell. Empty for a closure.
    public var command: String
    /// Who has asked; nil for the program's own work. The queue's share is counted by it.
    public var client: ConnectionID?
    /// What else belongs to the question. The job owns it.
    public var data: [UInt8]
    /// The answer's place among the client's sends. The pool uses it once: for the answer, or by skipping it. (I9.5)
    public var ticket: SendTicket?
    /// If not nil, the client's handler is told by its `sent` when the answer has been handed to the system.
    public var token: Int?
    /// When it was added, in nanoseconds on the monotonic clock, to within a few milliseconds; 0 before.
    public internal(set) var added: UInt64 = 0
    /// What the recorder knows it by, while there is a recording.
    let identity: UInt
    let work: (@Sendable () throws -> Void)?

    /// A job for the pool's `process`.
    public init(
        _ command: String, for client: ConnectionID? = nil, data: [UInt8] = [], ticket: SendTicket? = nil,
        token: Int? = nil
    ) {
        (self.command, self.client, self.data, self.ticket, self.token) = (
            command, client, data, ticket, token
        )
        identity = Job.nextIdentity()
        work = nil
    }

    /// A job that brings its work along. `process` does not see it.
    public init(for client: ConnectionID? = nil, _ work: @escaping @Sendable () throws -> Void) {
        (command, self.client, data, ticket, token) = ("", client, [], nil, nil)
        identity = Job.nextIdentity()
        self.work = work
    }

    /// Odd, so that it is no operation's: theirs are addresses.
    private static func nextIdentity() -> UInt { UInt(bitPattern: last.add(2, ordering: .relaxed).newValue) }
    private static let last = Atomic<Int>(1)
}

/// Why a job was not taken. It is still the caller's, with its ticket.
public enum JobError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The queue holds as many jobs as it may. `queueLow` tells when there is room.
    case full(capacity: Int)
    /// This client has as many jobs waiting as one client may. `queueLow` tells when it has room.
    case shareUsed(share: Int)
    /// The queue takes no more jobs.
    case closed

    /// One line.
    public var description: String {
        switch self {
        case .full(let capacity): "all \(capacity) places for jobs are taken; ask again when the queue is low"
        case .shareUsed(let share):
            "the client has its share of \(share) jobs waiting; ask again when some are done"
        case .closed: "no more jobs are taken"
        }
    }
}
