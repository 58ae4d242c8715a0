/// A queue that reuses its memory: elements leave in the order they came, and nothing is allocated while it holds
/// no more than it has held before. Not for several threads at once.
public struct CircularQueue<Element>: ~Copyable {
    @usableFromInline var storage: UnsafeMutablePointer<Element>
    @usableFromInline var mask: Int
    @usableFromInline var first = 0
    @usableFromInline var held = 0

    /// An empty queue with room for at least `capacity` elements.
    public init(capacity: Int = 16) {
        var room = 1
        while room < capacity { room *= 2 }
        storage = .allocate(capacity: room)
        mask = room - 1
    }

    deinit {
        for index in 0..<held { (storage + ((first + index) & mask)).deinitialize(count: 1) }
        storage.deallocate()
    }

    /// How many elements are in the queue.
    @inlinable public var count: Int { held }

    /// Whether nothing is in the queue.
    @inlinable public var isEmpty: Bool { held == 0 }

    /// The oldest element, which stays where it is; nil when there is none.
    @inlinable public var oldest: Element? { held == 0 ? nil : storage[first] }

    /// Adds an element at the end.
    @inlinable
    public mutating func append(_ element: consuming Element) {
        if held > mask { grow() }
        (storage + ((first + held) & mask)).initialize(to: element)
        held += 1
    }

    /// Takes the oldest element; nil when there is none.
    @inlinable
    public mutating func popFirst() -> Element? {
        held == 0 ? nil : removeFirst()
    }

    /// Takes the oldest element of a queue that is known not to be empty.
    @inlinable
    public mutating func removeFirst() -> Element {
        precondition(held > 0, "an empty queue has no first element")
        let element = (storage + first).move()
        first = (first + 1) & mask
        held -= 1
        return element
    }

    /// Lets all elements go.
    public mutating func removeAll() { while popFirst() != nil {} }

    /// Whether an element of the queue is such a one. Takes as long as the queue.
    public func contains(where isWanted: (borrowing Element) -> Bool) -> Bool {
        (0..<held).contains { isWanted((storage + ((first + $0) & mask)).pointee) }
    }

    @usableFromInline
    mutating func grow() {
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: 2 * (mask + 1))
        for index in 0..<held {
            (larger + index).initialize(to: (storage + ((first + index) & mask)).move())
        }
        storage.deallocate()
        storage = larger
        first = 0
        mask = 2 * mask + 1
    }
}
