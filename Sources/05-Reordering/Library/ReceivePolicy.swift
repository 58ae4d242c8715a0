/// Decides what a connection waits for its next bytes with: a read with a buffer, or a receive without one.
///
/// A connection has a number of *slots*: chunks that bytes can be read into. A slot is at home, or posted, or in the policy's
/// line, or held: by the window, the handler, other code, a send. The connection asks wherever it could post: the policy
/// lends the buffer, and answers for what that costs. Without a policy each slot is posted with memory of its
/// chunk; chapter 07's has a budget.
public protocol ReceivePolicy: AnyObject, Sendable {
    /// What the next bytes are waited for with. Under the connection's lock, which is held until the answer is carried out:
    /// short, no post, no call into any connection.
    ///
    /// A slot may come straight from its last read, with that read's buffer: then the policy may renew the loan.
    func plan(_ slot: Chunk, _ need: ReceiveNeed) -> ReceivePlan

    /// The slot goes home: the last share in it is gone, or nothing was posted with it. Buffer and charge go back. Under the
    /// connection's lock, as `plan`.
    func release(_ slot: Chunk)

    /// Takes a slot out of the line; then it holds nothing. Under the connection's lock, as `plan`.
    ///
    /// - Returns: false when it has been served already: then `granted` has been called, or will be.
    func withdraw(_ slot: Chunk) -> Bool

    /// The number of connections has changed. Without a lock; perhaps by several threads at once.
    func connectionsAre(_ count: Int)

    /// Called without a lock by the caller of one of the others, when it has given its own lock back. Here a policy does
    /// what it may not do there: calls `granted` for slots whose turn has come, `reconsider` for connections after a change of
    /// its mind. It is called for each packet: cheap when there is nothing to do.
    ///
    /// - Parameter connections: All that are open now, for a policy that needs them.
    func settle(_ connections: () -> [StreamConnection])
}

extension ReceivePolicy {
    /// There is no line.
    public func withdraw(_ slot: Chunk) -> Bool { false }
    /// The number does not matter.
    public func connectionsAre(_ count: Int) {}
    /// There is nothing to do.
    public func settle(_ connections: () -> [StreamConnection]) {}
}

/// What a connection can say about its reading when it asks its policy.
public struct ReceiveNeed: Sendable {
    /// Reads with a buffer that are posted, and whose packets have not been taken in.
    public var posted: Int
    /// Whether bytes, or the end, are known to be there: a receive without a buffer has said so, and no immediate read since
    /// has found less than it had room for.
    public var isReadable: Bool
    /// What the last read brought, and what it had room for.
    public var lastFill: (bytes: Int, of: Int)

    /// What is said.
    public init(posted: Int = 0, isReadable: Bool = false, lastFill: (bytes: Int, of: Int) = (0, 0)) {
        self.posted = posted
        self.isReadable = isReadable
        self.lastFill = lastFill
    }
}

/// What a policy says to that.
public enum ReceivePlan {
    /// Post a read with this buffer. It is charged, and the slot's until it is released or renewed.
    case read(UnsafeMutableRawBufferPointer)
    /// Read at once, into this buffer, what is there. Such a read never stays pending, so nothing is charged.
    case readNow(UnsafeMutableRawBufferPointer)
    /// Post a receive without a buffer, of which a connection has one at most. Nothing else is posted while it is.
    case wait
    /// The slot is in the policy's line, and `granted` tells when it is its turn. Only when nothing is posted.
    case later
    /// So many are enough.
    case enough
}
