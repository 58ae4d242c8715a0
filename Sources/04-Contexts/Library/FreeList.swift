import Kernel

/// Something that a `FreeList` keeps for reuse.
public protocol Pooled: AnyObject, Sendable {
    /// Its place in the list. Only the list looks into it, under its lock.
    var link: PoolLink { get set }
}

/// The place of an element: with an owner, or in one list. There is one link, and it knows whose it is, so that no
/// element is ever in two lists, or in one list twice. (I4.5)
public struct PoolLink {
    fileprivate var next: AnyObject?
    /// The list that made it, for good.
    fileprivate var home: ObjectIdentifier?
    /// It has no owner: it waits in the list, or the list has let go of it.
    fileprivate var isFree = false

    /// The link of an element that no list has seen yet.
    public init() {}
}

/// A bounded pool: takes and gives back without allocating, as long as it has something.
///
/// It keeps up to `maximumFree` elements for reuse, exactly; what comes back beyond that is let go, and its memory
/// with it. It hands out up to `maximumInUse`, exactly; then it says no. (I4.5) Any thread may use it.
public final class FreeList<Element: Pooled>: @unchecked Sendable {
    /// The most elements that are kept while they are not used.
    public let maximumFree: Int
    /// The most elements that are in use at a time.
    public let maximumInUse: Int
    private let make: @Sendable () -> Element
    private let lock = Lock()
    // Guarded by the lock.
    private var first: Element?
    private var count = Counters()

    /// What a pool has and what it has done.
    public struct Counters: Sendable, Equatable {
        /// Elements that wait for reuse.
        public fileprivate(set) var free = 0
        /// Elements that have an owner.
        public fileprivate(set) var inUse = 0
        /// The most that were in use at a time.
        public fileprivate(set) var peak = 0
        /// Elements made, since the start.
        public fileprivate(set) var made = 0
        /// Elements let go, since the list was full.
        public fileprivate(set) var discarded = 0
        /// How often the pool had to say no.
        public fileprivate(set) var refused = 0
    }

    /// An empty pool.
    public init(
        maximumFree: Int, maximumInUse: Int = .max, making make: @escaping @Sendable () -> Element
    ) {
        self.maximumFree = max(0, maximumFree)
        self.maximumInUse = maximumInUse
        self.make = make
    }

    deinit { trim() }

    /// Takes an element: one that waits for reuse, or a new one. Nil when so many are in use already as may be.
    public func take() -> Element? {
        lock.lock()
        guard count.inUse < maximumInUse else {
            count.refused += 1
            lock.unlock()
            return nil
        }
        count.inUse += 1
        count.peak = max(count.peak, count.inUse)
        if let element = pop() {
            element.link.isFree = false
            lock.unlock()
            return element
        }
        count.made += 1
        lock.unlock()
        // Making one may take a while: not under the lock.
        let element = make()
        element.link.home = ObjectIdentifier(self)
        return element
    }

    /// Gives an element back. It must be one of this list's, taken and not yet given back: anything else is a mistake
    /// in the program that would give one element to two owners later on, and traps here, where it was made.
    public func giveBack(_ element: Element) {
        lock.lock()
        precondition(element.link.home == ObjectIdentifier(self), "given to a list that it is not from")
        precondition(!element.link.isFree, "given back twice")
        element.link.isFree = true
        count.inUse -= 1
        if count.free < maximumFree {
            element.link.next = first
            first = element
            count.free += 1
        } else {
            count.discarded += 1
        }
        lock.unlock()
    }

    private func pop() -> Element? {
        lock.assertHeld()
        guard let element = first else { return nil }
        // Only elements of this type were linked.
        first = element.link.next.map { unsafeDowncast($0, to: Element.self) }
        element.link.next = nil
        count.free -= 1
        return element
    }

    /// Lets go of everything that waits for reuse. Returns how many elements that were.
    @discardableResult
    public func trim() -> Int {
        var dropped = 0
        // One by one: a long chain that let go of itself would need as deep a stack.
        while let element = lock.locked({ pop() }) {
            dropped += 1
            withExtendedLifetime(element) {}
        }
        return dropped
    }

    /// The counters.
    public var counters: Counters { lock.locked { count } }
}
