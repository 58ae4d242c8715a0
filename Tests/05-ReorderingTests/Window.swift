import Reordering
import Testing

@Suite("Chapter 05: numbers and the window")
struct Chapter05ReorderingWindow {
    // I5.4
    @Test("earlier is a matter of distance, also where the numbers begin again")
    func distances() {
        for first in [0, 1, 1_000, UInt32.max / 2, .max - 1, .max] {
            let number = SequenceNumber(first)
            #expect(number.next.value == first &+ 1)
            #expect(number.precedes(number.next))
            #expect(!number.next.precedes(number))
            #expect(!number.precedes(number))
            let far = SequenceNumber(first &+ 0x7fff_ffff)
            #expect(number.distance(to: far) == 0x7fff_ffff && number.precedes(far))
            #expect(far.distance(to: number) == -0x7fff_ffff && !far.precedes(number))
        }
    }

    // I5.3
    @Test("what is late, there already, or beyond the window is refused, and nothing changes")
    func refusals() {
        var window = ReorderWindow<String>(capacity: 3, first: SequenceNumber(.max))
        #expect(window.takeNext() == nil)
        #expect(window.insert("zero", SequenceNumber(0)) == .taken)
        #expect(window.insert("other", SequenceNumber(0)) == .duplicate)
        #expect(window.insert("late", SequenceNumber(.max - 1)) == .late)
        #expect(window.insert("beyond", SequenceNumber(2)) == .beyond)
        #expect(window.insert("far behind", SequenceNumber(.max / 2)) != .taken)
        let hasNone = !window.hasNext
        #expect(hasNone && window.count == 1)
        #expect(window.insert("last", SequenceNumber(.max)) == .taken)
        let hasOne = window.hasNext
        #expect(hasOne)
        #expect(window.takeNext() == "last")
        #expect(window.takeNext() == "zero")
        #expect(window.takeNext() == nil)
        #expect(window.expected == SequenceNumber(1) && window.count == 0 && window.peak == 2)
    }

    // I5.7
    @Test("giving up takes the earliest that is there, and frees everything that is left")
    func givingUp() {
        final class Thing {}
        weak var left: Thing?
        do {
            var window = ReorderWindow<Thing>(capacity: 8)
            let last = Thing()
            left = last
            _ = window.insert(Thing(), SequenceNumber(2))
            _ = window.insert(last, SequenceNumber(5))
            #expect(window.takeEarliest() != nil)
            #expect(window.expected == SequenceNumber(3))
            _ = window.insert(Thing(), SequenceNumber(7))
            #expect(window.takeEarliest() === last)
            #expect(window.count == 1)
        }
        #expect(left == nil)
    }

    // I5.4
    @Test(
        "a full window has a place for each of its numbers, wherever it begins",
        arguments: [1, 2, 3, 6, 8, 64])
    func full(capacity: Int) {
        for back in 0...UInt32(capacity) {
            let first = UInt32.max - back
            let numbers = (0..<UInt32(capacity)).map { first &+ $0 }
            var window = ReorderWindow<UInt32>(capacity: capacity, first: SequenceNumber(first))
            // The last one first, so that all of them are inside at the same time.
            for number in numbers.reversed() {
                #expect(window.insert(number, SequenceNumber(number)) == .taken)
            }
            for number in numbers { #expect(window.takeNext() == number) }
        }
    }

    // I5.2, I5.3, I5.4
    @Test(
        "100,000 numbers complete by chance, around the end of the circle, and come out in order",
        arguments: [1, 2, 3, 8, 64])
    func shuffled(capacity: Int) {
        let first = SequenceNumber(.max - 50_000)
        var window = ReorderWindow<UInt32>(capacity: capacity, first: first)
        var (next, expected, pending) = (first, first, [SequenceNumber]())
        // With this seed the last number and the first meet in the window of three.
        var random = Random(seed: UInt64(capacity) + 3)
        var isInOrder = true
        var delivered = 0
        for _ in 0..<100_000 {
            while pending.count + window.count < capacity {
                pending.append(next)
                next = next.next
            }
            let number = pending.remove(at: Int(random.next() % UInt64(pending.count)))
            isInOrder = isInOrder && window.insert(number.value, number) == .taken
            while let value = window.takeNext() {
                isInOrder = isInOrder && value == expected.value
                expected = expected.next
                delivered += 1
            }
        }
        #expect(isInOrder)
        #expect(window.peak <= capacity)
        #expect(delivered + window.count == 100_000)
        #expect(capacity == 1 || window.peak > 1)
    }
}

/// Numbers by chance, the same for the same seed.
struct Random {
    private var state: UInt64

    init(seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 | 1 }

    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}
