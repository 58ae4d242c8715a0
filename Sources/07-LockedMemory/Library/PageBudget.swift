import Glibc
import Kernel

/// Somebody who posts a buffer, and answers for its pages.
public protocol PageClaimant: AnyObject, Sendable {
    /// Its claim. Only the budget looks into it, under its lock.
    var claim: PageClaim { get set }

    /// The pages that it has waited for are its own now: it may post its buffer. Called without a lock, by the thread
    /// that gave pages back. To be short: another packet's handler waits.
    func budgetCame()
}

/// What a claimant has been charged, or waits for. There is one, and it knows what it holds: nothing is ever charged
/// twice or given back twice.
public struct PageClaim {
    fileprivate var buffer = UnsafeRawBufferPointer(start: nil, count: 0)
    fileprivate var pages = 0
    fileprivate var isWaiting = false
    fileprivate var next: (any PageClaimant)?
    // The neighbour is in the line as well, and the line holds it.
    fileprivate unowned(unsafe) var previous: (any PageClaimant)?

    /// A claim to nothing.
    public init() {}

    /// Whether pages are charged. For the claimant itself, when it does not wait.
    public var isHeld: Bool { pages > 0 }
}

/// So many pages may be locked at a time by the buffers of posted operations.
///
/// A buffer is charged before its operation is posted, page by page, and given back when the packet has come or the
/// post has failed. (I7.1, I7.2) When the pages do not suffice there are two ways: an error, or a place in a line that
/// is served in its order, as pages come back. (I7.3)
///
/// Any thread may use it. Win32 counterpart: the non-paged pool and the limit of locked pages, with `WSAENOBUFS`.
public final class PageBudget: @unchecked Sendable {
    /// What stands behind the budget.
    public enum Locking: Sendable {
        /// The budget only counts: this system copies received bytes and locks nothing.
        case counted
        /// The system really locks every charged page, and has a limit of its own (`mlock`, `RLIMIT_MEMLOCK`). For
        /// buffers that share no page with others, such as those of a `PageSlab`: a page is locked once or not at all.
        case system
    }

    /// What a budget has and what it has done.
    public struct Counters: Sendable, Equatable {
        /// Pages that are charged.
        public fileprivate(set) var locked = 0
        /// The most that there ever were at a time.
        public fileprivate(set) var peak = 0
        /// Claimants in the line.
        public fileprivate(set) var waiting = 0
        /// How often a charge was refused with an error.
        public fileprivate(set) var refused = 0
    }

    /// The most pages that are charged at a time.
    public let limit: Int
    /// What stands behind the budget.
    public let locking: Locking
    private let lock = Lock()
    // Guarded by the lock.
    private var count = Counters()
    private var first: (any PageClaimant)?
    private var last: (any PageClaimant)?

    /// A budget of `pages` pages.
    public init(pages: Int, locking: Locking = .counted) {
        limit = max(0, pages)
        self.locking = locking
    }

    /// The counters.
    public var counters: Counters { lock.locked { count } }

    // MARK: Charging

    /// Charges a buffer before its post. The claimant must hold nothing.
    ///
    /// - Throws: ENOBUFS when that many pages are not free, or others wait for some: then nothing is charged, and
    ///   nothing must be posted.
    public func charge(_ buffer: UnsafeRawBufferPointer, to claimant: any PageClaimant) throws(SystemError) {
        let isCharged = lock.locked {
            if first == nil && take(buffer, claimant) { return true }
            count.refused += 1
            return false
        }
        guard isCharged else { throw refusal(buffer) }
    }

    /// Charges a buffer now (true), or puts the claimant into the line (false): `budgetCame` then tells when it is
    /// charged. The claimant must hold nothing; the buffer stays where it is meanwhile.
    ///
    /// - Throws: ENOBUFS when it would wait for ever: the buffer has more pages than there are in all, or the system locks
    ///   nothing though nobody holds anything.
    public func chargeOrWait(
        _ buffer: UnsafeRawBufferPointer, to claimant: any PageClaimant
    ) throws(SystemError) -> Bool {
        guard Page.count(buffer) <= limit else { throw refusal(buffer) }
        return try lock.locked { () throws(SystemError) in
            // Nobody overtakes: while there is a line, its end is the only way in.
            if first == nil {
                if take(buffer, claimant) { return true }
                // The system itself has refused, and there is no page that could come back.
                if count.locked == 0 { throw refusal(buffer) }
            }
            append(buffer, claimant)
            return false
        }
    }

    /// For a buffer that has come back and is to be posted again: it stays charged (true) unless somebody waits, or it
    /// was charged for less than all of it. Otherwise its pages go back, and to the first in the line (false).
    public func renew(_ buffer: UnsafeRawBufferPointer, of claimant: any PageClaimant) -> Bool {
        let stays = lock.locked {
            first == nil && claimant.claim.pages > 0 && claimant.claim.buffer.count == buffer.count
        }
        if !stays { refund(claimant) }
        return stays
    }

    // MARK: Giving back

    /// Gives the claimant's pages back, and to those who wait as many as they need. A claimant that holds nothing gives
    /// nothing.
    public func refund(_ claimant: any PageClaimant) {
        tell(
            lock.locked {
                release(claimant)
                return serveFirst()
            })
    }

    /// Takes a claimant out of the line.
    ///
    /// - Returns: false when it is not in the line. If it was before, it has been charged, and `budgetCame` is on its
    ///   way: whoever handles that gives the pages back.
    public func withdraw(_ claimant: any PageClaimant) -> Bool {
        let isFound = lock.locked {
            guard claimant.claim.isWaiting else { return false }
            unlink(claimant)
            return true
        }
        // Perhaps it was the one at the head, and needed more than those behind it.
        if isFound { tell(lock.locked { serveFirst() }) }
        return isFound
    }

    /// Without the lock: tells who has been served, one after the other, in the order of the line.
    private func tell(_ served: (any PageClaimant)?) {
        var served = served
        while let claimant = served {
            claimant.budgetCame()
            served = lock.locked { serveFirst() }
        }
    }

    private func refusal(_ buffer: UnsafeRawBufferPointer) -> SystemError {
        SystemError(ENOBUFS, attempted: "lock \(Page.count(buffer)) pages")
    }

    // MARK: Under the lock

    private func take(_ buffer: UnsafeRawBufferPointer, _ claimant: any PageClaimant) -> Bool {
        precondition(!claimant.claim.isWaiting && claimant.claim.pages == 0, "charged twice")
        let pages = Page.count(buffer)
        guard count.locked + pages <= limit, reallyLock(buffer) else { return false }
        claimant.claim.buffer = buffer
        charge(claimant, pages)
        return true
    }

    private func charge(_ claimant: any PageClaimant, _ pages: Int) {
        claimant.claim.pages = pages
        count.locked += pages
        count.peak = max(count.peak, count.locked)
    }

    private func release(_ claimant: any PageClaimant) {
        guard claimant.claim.pages > 0 else { return }
        if locking == .system { munlock(claimant.claim.buffer.baseAddress, claimant.claim.buffer.count) }
        count.locked -= claimant.claim.pages
        claimant.claim.pages = 0
    }

    private func reallyLock(_ buffer: UnsafeRawBufferPointer) -> Bool {
        locking == .counted || buffer.isEmpty || mlock(buffer.baseAddress, buffer.count) == 0
    }

    /// Takes the first out of the line if there are pages for it, and charges it.
    private func serveFirst() -> (any PageClaimant)? {
        guard let claimant = first, count.locked + Page.count(claimant.claim.buffer) <= limit,
            reallyLock(claimant.claim.buffer)
        else { return nil }
        unlink(claimant)
        charge(claimant, Page.count(claimant.claim.buffer))
        return claimant
    }

    private func append(_ buffer: UnsafeRawBufferPointer, _ claimant: any PageClaimant) {
        precondition(!claimant.claim.isWaiting && claimant.claim.pages == 0, "in the line twice")
        claimant.claim.buffer = buffer
        claimant.claim.isWaiting = true
        claimant.claim.previous = last
        if let last { last.claim.next = claimant } else { first = claimant }
        last = claimant
        count.waiting += 1
    }

    private func unlink(_ claimant: any PageClaimant) {
        let (previous, next) = (claimant.claim.previous, claimant.claim.next)
        if let previous { previous.claim.next = next } else { first = next }
        if let next { next.claim.previous = previous } else { last = previous }
        claimant.claim.previous = nil
        claimant.claim.next = nil
        claimant.claim.isWaiting = false
        count.waiting -= 1
    }
}
