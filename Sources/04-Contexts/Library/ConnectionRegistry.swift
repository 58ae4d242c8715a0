import Glibc
import Kernel
import Synchronization

/// The name of a connection for the whole life of the program: never given twice. (I4.7)
public struct ConnectionID: Hashable, Comparable, Sendable, CustomStringConvertible {
    private let number: UInt64
    private static let last = Atomic<UInt64>(0)

    /// The next name. At a million connections a second they last for half a million years.
    public static func next() -> ConnectionID {
        ConnectionID(number: last.add(1, ordering: .relaxed).newValue)
    }

    /// The older one comes first.
    public static func < (a: ConnectionID, b: ConnectionID) -> Bool { a.number < b.number }

    /// A number with a mark before it: `#7`.
    public var description: String { "#\(number)" }
}

/// All open connections of a server by their names, and the book-keeping: how many there may be, how many there were,
/// and why they ended.
///
/// It knows nothing of what a connection is, so every chapter from here on uses it as it is. Looking up gives a counted
/// reference, which stays good when the lock is given back, whatever happens to the connection. Walking means walking a
/// snapshot. (I4.7) Any thread may use it.
public final class ConnectionRegistry<Member: AnyObject & Sendable>: @unchecked Sendable {
    /// The most connections at a time.
    public let limit: Int
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var open: [ConnectionID: Member] = [:]
    private var ledger = ConnectionCounters()
    private var isClosing = false

    /// An empty registry.
    public init(limit: Int) { self.limit = limit }

    // MARK: In and out

    /// Takes a connection in: from here on others find it.
    ///
    /// - Throws: ENOBUFS when there are too many, which is counted; EBADF when the registry is closed. Then it is not in,
    ///   and must not be removed or released.
    public func insert(_ member: Member, as id: ConnectionID) throws(SystemError) {
        let hasRoom = try monitor.locked { () throws(SystemError) in
            if isClosing { throw SystemError.closed("take a connection in") }
            guard open.count < limit else {
                ledger.refused += 1
                return false
            }
            open[id] = member
            ledger.opened += 1
            return true
        }
        guard hasRoom else { throw SystemError(ENOBUFS, attempted: "take a connection in") }
    }

    /// The connection of that name; nil when it has ended. A name never comes to mean another one.
    public func find(_ id: ConnectionID) -> Member? { monitor.locked { open[id] } }

    /// All that are open at this moment, in no order. Any of them may be closed by the time it is looked at.
    public func snapshot() -> [Member] { monitor.locked { Array(open.values) } }

    /// How many are open at this moment. It costs the same for one and for a million.
    public var count: Int { monitor.locked { open.count } }

    /// Takes a connection out and counts its end.
    ///
    /// - Returns: true for exactly one caller, the first: it announces the end. False also for one that never was in.
    @discardableResult
    public func remove(_ id: ConnectionID, _ reason: CloseReason) -> Bool {
        // The last reference may go with it, and then `released` is called: not under the monitor.
        let member = monitor.locked { () -> Member? in
            guard let member = open.removeValue(forKey: id) else { return nil }
            ledger.announced += 1
            ledger.reasons[reason, default: 0] += 1
            if isClosing { monitor.broadcast() }
            return member
        }
        return member != nil
    }

    /// To be called once for each that was taken in, when its memory goes: by its `deinit`.
    public func released() {
        monitor.locked {
            ledger.released += 1
            if isClosing { monitor.broadcast() }
        }
    }

    /// The counters.
    public var counters: ConnectionCounters { monitor.locked { ledger } }

    // MARK: The end

    /// What the end of all waits for.
    public enum Extent: Sendable {
        /// Every end is announced. References may still be held.
        case announced
        /// The memory of every connection is given back, too.
        case released
    }

    /// Takes no more in, has every connection closed, and waits. Workers have to be at work meanwhile.
    ///
    /// - Parameter close: Called with each that is open, by this thread, with no lock held.
    /// - Returns: false when it was not so in time.
    public func closeAll(
        within patience: Duration = .seconds(10), until extent: Extent = .released, _ close: (Member) -> Void
    ) -> Bool {
        monitor.locked { isClosing = true }
        for member in snapshot() { close(member) }
        let deadline = Deadline.after(patience)
        return monitor.locked {
            var isOver: Bool { ledger.opened == (extent == .announced ? ledger.announced : ledger.released) }
            while !isOver, monitor.wait(until: deadline) {}
            return isOver
        }
    }
}

/// The book-keeping of connections. When all is over, as many were announced and released as were opened.
public struct ConnectionCounters: Sendable, Equatable {
    /// Connections taken in, since the start.
    public internal(set) var opened = 0 { didSet { peak = max(peak, alive) } }
    /// The most whose memory was alive at a time.
    public internal(set) var peak = 0
    /// Ends announced.
    public internal(set) var announced = 0
    /// Connections whose memory has been given back.
    public internal(set) var released = 0
    /// Connections that were not taken in, since there were too many.
    public internal(set) var refused = 0
    /// The ends announced, by their reason.
    public internal(set) var reasons: [CloseReason: Int] = [:]
    /// Connections whose memory is alive: open, or closed with an operation still under way.
    public var alive: Int { opened - released }

    /// Nothing yet.
    public init() {}
}
