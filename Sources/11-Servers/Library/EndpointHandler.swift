import Contexts
import FileTransfer
import Framing
import Kernel
import Reordering
import WorkerPools

/// What a program does with the sessions of an endpoint. One object for all of them; what belongs to one goes into
/// `Session.context`.
///
/// No lock is held in any call, so each may call everything but `stop`. (I11.5) The calls about one session come one at a
/// time, in the order in which they stand here, on an I/O worker; `expired` and `process` come from other threads, and beside
/// them. Everything but `ended`, `failed` and `admits` does nothing by default.
public protocol EndpointHandler: AnyObject, Sendable {
    // MARK: The endpoint

    /// It listens, and accepts wait. In `start`.
    func started(_ addresses: [Address])
    /// It is stopped: no call comes after this but `log`. In `stop`.
    func stopped(_ statistics: Statistics)
    /// A line for people, on a thread of its own.
    func log(_ line: String)

    // MARK: A session

    /// A client is here; is it let in? Before anything is made for it. To be short. A refusal in words is sent as one message.
    func admits(_ remote: Address, _ local: Address?) -> Admission
    /// A client was not let in. Nothing else is ever heard of it.
    func refused(_ remote: Address?, _ why: Refusal)
    /// A session has been made, and nothing is read yet.
    func made(_ session: Session)
    /// It stands. What came with the connection comes after this.
    func connected(_ session: Session)
    /// The next message. It is lent for the call.
    func received(_ message: RawSpan, _ session: Session)
    /// A send with a token, of so many bytes, has been handed to the system. No more than that.
    func sent(_ token: Int, _ bytes: Int, _ session: Session)
    /// The program at the other end has said that it has this message.
    func acknowledged(_ token: Int, _ session: Session)
    /// A file comes unasked; is it wanted?
    func offered(_ name: String, _ size: UInt64, _ session: Session) -> Bool
    /// How far a file is.
    func progress(_ progress: TransferProgress, _ session: Session)
    /// A file is complete, or has come to nothing.
    func fileFinished(_ result: TransferResult, _ session: Session)
    /// What comes is no message. By default the session finishes.
    func failed(_ error: FrameError, _ session: Session)
    /// The other side sends no more. By default the session finishes.
    func ended(_ session: Session)
    /// It has taken too long, and will be closed. True: the handler has sent its last words meanwhile, and the session may still
    /// send them. On the clock's thread.
    func expired(_ limit: Limit, _ session: Session) -> Bool
    /// It is over, nothing of it is pending. Exactly once for each that was made.
    func disconnected(_ session: Session, _ reason: EndReason)
    /// Its memory is given back.
    func released(_ id: ConnectionID)

    // MARK: Work

    /// A job. On a logical worker; several at once if there are several. What it returns is sent to the job's client as one
    /// message.
    func process(_ job: Job) throws -> [UInt8]?

    // MARK: A client's

    /// A connection to a server is over.
    func connectionLost(_ link: Link, _ reason: EndReason)
    /// It will be tried again, for this time in a row, after that long. Nobody waits meanwhile.
    func reconnecting(_ link: Link, attempt: Int, after: Duration)
    /// It will not be tried again.
    func gaveUp(_ link: Link)
}

extension EndpointHandler {
    /// Does nothing.
    public func started(_ addresses: [Address]) {}
    /// Does nothing.
    public func stopped(_ statistics: Statistics) {}
    /// Does nothing.
    public func log(_ line: String) {}
    /// Everybody is welcome.
    public func admits(_ remote: Address, _ local: Address?) -> Admission { .welcome }
    /// Does nothing.
    public func refused(_ remote: Address?, _ why: Refusal) {}
    /// Does nothing.
    public func made(_ session: Session) {}
    /// Does nothing.
    public func connected(_ session: Session) {}
    /// Does nothing.
    public func received(_ message: RawSpan, _ session: Session) {}
    /// Does nothing.
    public func sent(_ token: Int, _ bytes: Int, _ session: Session) {}
    /// Does nothing.
    public func acknowledged(_ token: Int, _ session: Session) {}
    /// It is wanted.
    public func offered(_ name: String, _ size: UInt64, _ session: Session) -> Bool { true }
    /// Does nothing.
    public func progress(_ progress: TransferProgress, _ session: Session) {}
    /// Does nothing.
    public func fileFinished(_ result: TransferResult, _ session: Session) {}
    /// Finishes.
    public func failed(_ error: FrameError, _ session: Session) { session.finish() }
    /// Finishes.
    public func ended(_ session: Session) { session.finish() }
    /// It is closed at once.
    public func expired(_ limit: Limit, _ session: Session) -> Bool { false }
    /// Does nothing.
    public func disconnected(_ session: Session, _ reason: EndReason) {}
    /// Does nothing.
    public func released(_ id: ConnectionID) {}
    /// There is no answer.
    public func process(_ job: Job) throws -> [UInt8]? { nil }
    /// Does nothing.
    public func connectionLost(_ link: Link, _ reason: EndReason) {}
    /// Does nothing.
    public func reconnecting(_ link: Link, attempt: Int, after: Duration) {}
    /// Does nothing.
    public func gaveUp(_ link: Link) {}
}
