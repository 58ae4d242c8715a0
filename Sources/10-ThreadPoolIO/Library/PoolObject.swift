import CompletionPorts
import Glibc
import Kernel

/// What the four kinds of task have in common: an account of their callbacks, a way to wait for them, an end.
///
/// Every callback is *announced* before it can begin, and its account is closed when it has returned or was dropped:
/// so there is always a number that says whether something is still to come. (I10.3)
/// All accounts are guarded by the pool's monitor. Methods may be called from any thread.
///
/// (It is an `Overlapped` only so that a posted packet can carry it. It is never posted on a handle.)
public class PoolObject: Overlapped, @unchecked Sendable {
    /// Whose threads call.
    public let pool: ThreadPool
    private weak var group: PoolGroup?
    /// Announced, and not begun.
    private var announced = 0
    /// Begun, and not returned.
    private var running = 0
    /// Raised by each cancelling: calls of an earlier epoch are dropped when their turn comes.
    private var epoch = 0
    private(set) var isClosed = false

    /// A callback that is announced, on its way to the port.
    struct Call {
        let object: PoolObject
        let epoch: Int
        /// For the object itself.
        var key: UInt = 0
    }

    init(_ pool: ThreadPool, _ group: PoolGroup?) {
        self.pool = pool
        self.group = group
        super.init()
        group?.add(self)
    }

    /// Callbacks that are announced or running.
    public var pendingCallbacks: Int { pool.monitor.locked { announced + running } }

    // MARK: For the kinds

    /// On a pool's thread, without a lock.
    func called(_ packet: Packet, _ instance: CallbackInstance) {}

    /// Under the monitor: ends what has not led to a callback yet. The call that has come of it all the same, if any.
    func disarm() -> Call? { nil }

    /// Under the monitor.
    func requireOpen(_ attempted: String) throws(SystemError) {
        if isClosed { throw SystemError.closed("\(attempted) that is closed") }
    }

    // MARK: The account, under the monitor

    /// One more callback is to come. `end` or `withdraw` closes the account.
    func announce(key: UInt = 0) -> Call {
        announced += 1
        pool.outstanding += 1
        return Call(object: self, epoch: epoch, key: key)
    }

    /// The callback's turn has come. False when it has been cancelled.
    func begin(_ epoch: Int) -> Bool {
        guard epoch == self.epoch else { return false }
        announced -= 1
        running += 1
        return true
    }

    /// The callback has returned.
    func end() {
        running -= 1
        settle(1)
    }

    /// Nothing will come of an announcement. (It may have been cancelled meanwhile.)
    func withdraw(_ call: Call) {
        guard call.epoch == epoch else { return }
        announced -= 1
        settle(1)
    }

    private func settle(_ callbacks: Int) {
        pool.outstanding -= callbacks
        guard announced + running == 0 else { return }
        if isClosed { group?.remove(self) }
        pool.monitor.broadcast()
    }

    // MARK: Waiting, and the end

    /// Waits until every callback that has been announced is over.
    ///
    /// - Parameter cancelling: Drops those that have not begun. An operation goes on all the same, and keeps its memory
    ///   until it has completed; its callback is dropped then. (I10.5)
    /// - Throws: EDEADLK from a callback of this very object, which would wait for itself. (Windows waits for ever.)
    ///
    /// Win32 counterpart: `WaitForThreadpoolWorkCallbacks` and its three siblings.
    public func waitForCallbacks(cancelling: Bool = false) throws(SystemError) {
        let instance = CallbackInstance.current
        if instance?.object === self {
            throw SystemError(EDEADLK, attempted: "wait for the callbacks of an object from one of them")
        }
        if cancelling { cancelAnnounced() }
        // On a thread of the pool: another one may run meanwhile.
        if instance?.pool === pool { pool.port.blocking { waitUntilIdle() } } else { waitUntilIdle() }
    }

    private func waitUntilIdle() {
        pool.monitor.locked { while announced + running > 0 { pool.monitor.wait() } }
    }

    private func cancelAnnounced() {
        pool.monitor.locked {
            let dropped = announced
            epoch += 1
            announced = 0
            pool.count.cancelled += dropped
            settle(dropped)
        }
        pool.closePortIfDone()
    }

    /// Takes nothing new. What has been announced is still called; the object goes when that is over. A callback may
    /// close its own object.
    ///
    /// Win32 counterpart: `CloseThreadpoolWork`, `…Timer`, `…Wait`, `…Io`.
    public func close() {
        let call = pool.monitor.locked {
            isClosed = true
            let call = disarm()
            settle(0)
            return call
        }
        if let call { pool.post(call) }
    }
}

/// Objects that end together.
///
/// Win32 counterpart: `CreateThreadpoolCleanupGroup`.
public final class PoolGroup: @unchecked Sendable {
    // Taken after a pool's monitor, if at all.
    private let lock = Lock()
    private var members: [ObjectIdentifier: PoolObject] = [:]

    /// An empty group. An object enters it when it is made, and leaves it when it is closed and its callbacks are over.
    public init() {}

    func add(_ object: PoolObject) { lock.locked { members[ObjectIdentifier(object)] = object } }

    func remove(_ object: PoolObject) {
        _ = lock.locked { members.removeValue(forKey: ObjectIdentifier(object)) }
    }

    /// How many there are.
    public var count: Int { lock.locked { members.count } }

    /// Closes every member and waits for their callbacks. The group is empty afterwards.
    ///
    /// - Parameter cancelling: Drops callbacks that have not begun.
    /// - Throws: EDEADLK from a callback of a member.
    ///
    /// Win32 counterpart: `CloseThreadpoolCleanupGroupMembers`.
    public func close(cancelling: Bool = false) throws(SystemError) {
        if let object = CallbackInstance.current?.object,
            lock.locked({ members[ObjectIdentifier(object)] != nil })
        {
            throw SystemError(EDEADLK, attempted: "close a group from a callback of one of its members")
        }
        // A callback that still runs may make new members.
        while true {
            let present = lock.locked { Array(members.values) }
            if present.isEmpty { return }
            for member in present { member.close() }
            for member in present { try member.waitForCallbacks(cancelling: cancelling) }
        }
    }
}
