import Glibc
import Kernel
import Synchronization

/// What posts a buffer, and answers for its pages.
public protocol PageClaimant: AnyObject, Sendable {
    /// Its claim. Only the budget looks into it, under its lock.
    var claim: PageClaim { get set }

    /// It is out of the line. The pages that it has waited for are its own now, so its buffer may be posted; or its claim
    /// holds nothing, when the system locks nothing though no page is left that could come back. Called without a lock, by
    /// a thread that serves the line. To be short: that thread has a connection of its own to go on with.
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
/// A buffer is charged before its operation is posted, page by page, and given back when it is not needed any more or the
/// post has failed. (I7.1, I7.2) When the pages do not suffice there are two ways: an error, or a place in a line that
/// is served in its order, as pages come back. (I7.3) Giving back makes no call, so it may happen under a lock; `serve`
/// tells, and is called when that lock is free. (I7.7)
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
    /// Pages have come back while the line was not empty: `serve` has something to do.
    private let isOwed = Atomic<Bool>(false)
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
    ///   nothing though nothing is held.
    public func chargeOrWait(
        _ buffer: UnsafeRawBufferPointer, to claimant: any PageClaimant
    ) throws(SystemError) -> Bool {
        guard Page.count(buffer) <= limit else { throw refusal(buffer) }
        return try lock.locked { () throws(SystemError) in
            // None overtakes: while there is a line, its end is the only way in.
            if first == nil {
                if take(buffer, claimant) { return true }
                // The system itself has refused, and there is no page that could come back.
                if count.locked == 0 { throw refusal(buffer) }
            }
            append(buffer, claimant)
            return false
        }
    }

    /// For a buffer that has come back and is to be posted again: it stays charged (true) unless others wait, or it
    /// was charged for another length. Otherwise its pages go back (false), for the first in the line.
    public func renew(_ buffer: UnsafeRawBufferPointer, of claimant: any PageClaimant) -> Bool {
        lock.locked {
            if first == nil && claimant.claim.pages > 0 && claimant.claim.buffer.count == buffer.count {
                return true
            }
            release(claimant)
            return false
        }
    }

    // MARK: Giving back

    /// Gives the claimant's pages back. A claimant that holds nothing gives nothing. If others wait, the pages are theirs
    /// from now on, though they are told only by the `serve` that the caller owes them. (I7.3)
    public func refund(_ claimant: any PageClaimant) { lock.locked { release(claimant) } }

    /// Takes a claimant out of the line. Perhaps it was the first, and needed more than those behind it: the caller owes
    /// them a `serve`.
    ///
    /// - Returns: false when it is not in the line. If it was before, it has been served, and `budgetCame` is on its way:
    ///   what handles that gives the pages back.
    public func withdraw(_ claimant: any PageClaimant) -> Bool {
        lock.locked {
            guard claimant.claim.isWaiting else { return false }
            unlink(claimant)
            owe()
            return true
        }
    }

    /// Charges those in the line, in its order, for as long as there are pages, and tells each. To be called without any
    /// lock, behind `refund`, `renew` and `withdraw`; with nothing owed it costs a look.
    public func serve() {
        guard isOwed.load(ordering: .relaxed), isOwed.exchange(false, ordering: .acquiring) else { return }
        while let claimant = lock.locked({ serveFirst() }) { claimant.budgetCame() }
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
        owe()
    }

    private func owe() {
        if first != nil { isOwed.store(true, ordering: .releasing) }
    }

    private func reallyLock(_ buffer: UnsafeRawBufferPointer) -> Bool {
        locking == .counted || buffer.isEmpty || mlock(buffer.baseAddress, buffer.count) == 0
    }

    /// Takes the first out of the line if there are pages for it, and charges it. If the system refuses it, and there is no
    /// page that could come back, it leaves the line without: it would wait for ever. (I7.3)
    private func serveFirst() -> (any PageClaimant)? {
        guard let claimant = first else { return nil }
        let pages = Page.count(claimant.claim.buffer)
        guard count.locked + pages <= limit else { return nil }
        let isLocked = reallyLock(claimant.claim.buffer)
        guard isLocked || count.locked == 0 else { return nil }
        unlink(claimant)
        if isLocked { charge(claimant, pages) }
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
