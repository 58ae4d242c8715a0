/// Takes numbered elements in any order, and gives them out in the order of their numbers.
///
/// It has room for `capacity` elements, from the next expected number on, and never for more: whoever gives the
/// numbers has no more than so many of them out. (I5.3) Nothing is allocated after `init`, and each step costs the same
/// however many wait. It has no lock: it belongs to something that has one. (I5.2)
public struct ReorderWindow<Element>: ~Copyable {
    /// How many elements it has room for, the next expected one included.
    public let capacity: Int
    /// The number of the element that comes out next.
    public private(set) var expected: SequenceNumber
    /// Elements that are inside now.
    public private(set) var count = 0
    /// The most that ever were.
    public private(set) var peak = 0
    // This window's alone, from `init` to `deinit`. A power of two, so that the place of a number is the same before
    // and after the numbers begin again. (I5.4)
    private let slots: UnsafeMutablePointer<Element?>
    private let mask: UInt32

    /// What became of an element that was put in.
    public enum Place: Sendable, Equatable {
        /// It is inside.
        case taken
        /// Its number has come out already.
        case late
        /// There is one with its number.
        case duplicate
        /// Its number lies beyond the window.
        case beyond
    }

    /// An empty window.
    public init(capacity: Int, first: SequenceNumber = SequenceNumber(0)) {
        precondition((1...(1 << 30)).contains(capacity), "a window has room for 1 to 2^30 elements")
        self.capacity = capacity
        expected = first
        var room = 1
        while room < capacity { room *= 2 }
        mask = UInt32(room - 1)
        slots = .allocate(capacity: room)
        slots.initialize(repeating: nil, count: room)
    }

    deinit {
        slots.deinitialize(count: Int(mask) + 1)
        slots.deallocate()
    }

    private func slot(_ number: SequenceNumber) -> UnsafeMutablePointer<Element?> {
        slots + Int(number.value & mask)
    }

    /// Puts an element in. Only `taken` has kept it.
    public mutating func insert(_ element: Element, _ number: SequenceNumber) -> Place {
        let distance = expected.distance(to: number)
        if distance < 0 { return .late }
        if distance >= capacity { return .beyond }
        let slot = slot(number)
        if slot.pointee != nil { return .duplicate }
        slot.pointee = element
        count += 1
        if count > peak { peak = count }
        return .taken
    }

    /// Whether the next expected element is there.
    public var hasNext: Bool { count > 0 && slot(expected).pointee != nil }

    /// Takes the next expected element out; nil while it is missing, whatever else is there.
    public mutating func takeNext() -> Element? {
        guard count > 0 else { return nil }
        let slot = slot(expected)
        guard let element = slot.pointee else { return nil }
        slot.pointee = nil
        count -= 1
        expected = expected.next
        return element
    }

    /// Gives up waiting: takes the earliest element that is there, and goes on behind it. Nil when there is none.
    public mutating func takeEarliest() -> Element? {
        guard count > 0 else { return nil }
        while slot(expected).pointee == nil { expected = expected.next }
        return takeNext()
    }
}
