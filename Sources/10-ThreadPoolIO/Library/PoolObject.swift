import CompletionPorts
import Glibc
import Kernel

/// What the four kinds of task have in common: an account of their callbacks, a way to wait for them, an end.
///
/// Every callback is *announced* before it can begin, and its account is closed when it has returned or was dropped:
/// so there is always a number that says whether something is still to come. (I10.3)
/// All accounts are guarded by the pool's monitor. Methods may be called from any thread.
public class PoolObject: Overlapped, @unchecked Sendable {
    /// Whose threads call.
    public let pool: ThreadPool
    /// Announced, and not begun.
    private var announced = 0
    /// Begun, and not returned.
    private var running = 0
    /// Raised by who cancels: calls of an earlier one are dropped when their turn comes.
    private var epoch = Epoch(number: 0)
    private(set) var isClosed = false

    struct Epoch: Equatable {
        let number: Int
        static func current(_ number: Int) -> Epoch { Epoch(number: number) }
    }

    /// A callback that is announced, on its way to the port.
    struct Call {
        let object: PoolObject
        let epoch: Epoch
        /// For the object itself.
        var key: UInt = 0
    }

    init(_ pool: ThreadPool, _ group: PoolGroup?) {
        self.pool = pool
        super.init()
        group?.add(self)
    }

    /// Callbacks that are announced or running.
    public var pendingCallbacks: Int { pool.monitor.locked { announced + running } }

    // MARK: For the kinds

    /// On a pool's thread, without a lock.
    func called(_ packet: Packet, _ instance: CallbackInstance) {}

    /// Ends what has not led to a callback yet: a timer, a wait. Nothing to do for the others.
    func disarm() {}

    /// Under the monitor: one more callback is to come. `end` or `withdraw` closes the account.
    func announce() -> Epoch {
        announced += 1
        pool.outstanding += 1
        return epoch
    }

    /// Announces a callback, for a caller without the monitor, and sees to it that there is a thread for it.
    func announce(_ attempted: String) throws(SystemError) -> Epoch {
        let (epoch, needsThread): (Epoch, Bool) = try pool.monitor.locked { () throws(SystemError) in
            try requireOpen(attempted)
            return (announce(), pool.reserveThread(unless: pool.count.threads > 0))
        }
        guard needsThread else { return epoch }
        do throws(SystemError) {
            try pool.startThread()
        } catch {
            withdraw(epoch)
            throw error
        }
        return epoch
    }

    /// Under the monitor.
    func requireOpen(_ attempted: String) throws(SystemError) {
        if isClosed || pool.isClosed {
            throw SystemError.closed("\(attempted) of a closed \(isClosed ? "object" : "thread pool")")
        }
    }

    /// Takes an announcement back: nothing will come of it.
    func withdraw(_ epoch: Epoch) {
        pool.monitor.locked {
            guard epoch == self.epoch else { return }
            announced -= 1
            settleOne()
        }
        pool.closePortIfDone()
    }

    /// Under the monitor: the callback's turn has come. False when it has been cancelled.
    func begin(_ epoch: Epoch) -> Bool {
        guard epoch == self.epoch else { return false }
        announced -= 1
        running += 1
        return true
    }

    /// Under the monitor: the callback has returned.
    func end() {
        running -= 1
        settleOne()
    }

    private func settleOne() {
        pool.outstanding -= 1
        if announced + running == 0 { pool.monitor.broadcast() }
    }

    // MARK: Waiting

    /// Waits until every callback that has been announced is over.
    ///
    /// - Parameter cancelling: Drops those that have not begun. An operation goes on all the same, and keeps its memory
    ///   until it has completed; its callback is dropped then.
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
            epoch = Epoch(number: epoch.number + 1)
            pool.count.cancelled += announced
            pool.outstanding -= announced
            announced = 0
            if running == 0 { pool.monitor.broadcast() }
        }
        pool.closePortIfDone()
    }

    /// Takes nothing new. What has been announced is still called; the object goes when that is over. A callback may
    /// close its own object.
    ///
    /// Win32 counterpart: `CloseThreadpoolWork`, `…Timer`, `…Wait`, `…Io`.
    public func close() {
        pool.monitor.locked { isClosed = true }
        disarm()
    }
}

/// Objects that end together.
///
/// Win32 counterpart: `CreateThreadpoolCleanupGroup`.
public final class PoolGroup: @unchecked Sendable {
    private let lock = Lock()
    private var members: [PoolObject] = []

    /// An empty group. An object enters it when it is made.
    public init() {}

    func add(_ object: PoolObject) { lock.locked { members.append(object) } }

    /// Closes every member and waits for their callbacks. The group is empty afterwards.
    ///
    /// - Parameter cancelling: Drops callbacks that have not begun.
    /// - Throws: EDEADLK from a callback of a member.
    ///
    /// Win32 counterpart: `CloseThreadpoolCleanupGroupMembers`.
    public func close(cancelling: Bool = false) throws(SystemError) {
        if let object = CallbackInstance.current?.object, lock.locked({ members.contains { $0 === object } }) {
            throw SystemError(EDEADLK, attempted: "close a group from a callback of one of its members")
        }
        // A callback that still runs may make new members.
        while true {
            let leaving = lock.locked {
                defer { members = [] }
                return members
            }
            if leaving.isEmpty { return }
            for member in leaving { member.close() }
            for member in leaving { try member.waitForCallbacks(cancelling: cancelling) }
        }
    }
}
