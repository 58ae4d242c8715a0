/// Takes numbered elements in any order, and gives them out in the order of their numbers.
///
/// It has room for `capacity` elements, from the next expected number on, and never for more: the code that gives the
/// numbers has no more than so many of them out. (I5.3) Elements that come in their order cost no memory; the places for
/// those that have to wait are made when the first one does, and nothing is allocated after that. Each step costs the same
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
    /// The expected element, if it is there: it never has a place.
    private var head: Element?
    // None until an element has to wait. As many as a power of two, so that the place of a number is the same before and
    // after the numbers begin again. (I5.4)
    private var places: [Element?] = []

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
    }

    private var room: Int { 1 << (Int.bitWidth - (capacity - 1).leadingZeroBitCount) }

    private func place(_ number: SequenceNumber) -> Int { Int(number.value) & (room - 1) }

    /// Puts an element in. Only `taken` has kept it.
    public mutating func insert(_ element: Element, _ number: SequenceNumber) -> Place {
        let distance = expected.distance(to: number)
        if distance < 0 { return .late }
        if distance >= capacity { return .beyond }
        if distance == 0 {
            if head != nil { return .duplicate }
            head = element
        } else {
            if places.isEmpty { places = Array(repeating: nil, count: room) }
            if places[place(number)] != nil { return .duplicate }
            places[place(number)] = element
        }
        count += 1
        if count > peak { peak = count }
        return .taken
    }

    /// Whether the next expected element is there.
    public var hasNext: Bool { head != nil }

    /// The next expected element goes by without having been inside. False when there are others inside.
    public mutating func pass() -> Bool {
        guard count == 0 else { return false }
        expected = expected.next
        return true
    }

    /// Takes the next expected element out; nil while it is missing, whatever else is there.
    public mutating func takeNext() -> Element? {
        guard let element = head.take() else { return nil }
        count -= 1
        expected = expected.next
        if count > 0 { head = places[place(expected)].take() }
        return element
    }

    /// Gives up waiting: takes the earliest element that is there, and goes on behind it. Nil when there is none.
    public mutating func takeEarliest() -> Element? {
        guard count > 0 else { return nil }
        while head == nil {
            expected = expected.next
            head = places[place(expected)].take()
        }
        return takeNext()
    }
}
