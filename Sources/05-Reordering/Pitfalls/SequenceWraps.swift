import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: a list that is sorted by "smaller", and whose head comes out when its turn has come.
struct BrokenSortedWindow {
    private var waiting: [UInt32] = []
    private(set) var expected: UInt32

    init(first: UInt32) { expected = first }

    mutating func insert(_ number: UInt32) {
        let place = waiting.firstIndex { number < $0 } ?? waiting.count
        waiting.insert(number, at: place)
    }

    mutating func takeNext() -> UInt32? {
        guard waiting.first == expected else { return nil }
        expected = expected &+ 1
        return waiting.removeFirst()
    }
}

/// The number begins again at 0, and "smaller" stops meaning "earlier".
public enum SequenceWraps {
    private static let first = UInt32.max - 1
    /// As they complete: the last numbers of the circle and the first of the next.
    private static let order = [UInt32.max, 0, UInt32.max - 1, 1]

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "sequence-wraps",
        title: "after 4,294,967,295 comes 0, which is smaller, and the stream stands still",
        broken: { _ in
            var window = BrokenSortedWindow(first: first)
            var out: [UInt32] = []
            for number in order {
                window.insert(number)
                while let next = window.takeNext() { out.append(next) }
            }
            return Observation(
                happened: out.count < order.count,
                lines: [
                    "completed: \(order.map(String.init).joined(separator: ", "))",
                    "came out:  \(out.map(String.init).joined(separator: ", "))"
                        + "; it waits for \(window.expected), which is in the list, behind 0",
                ])
        },
        fixed: { driver in
            var window = ReorderWindow<UInt32>(capacity: 4, first: SequenceNumber(first))
            var out: [UInt32] = []
            for number in order {
                _ = window.insert(number, SequenceNumber(number))
                while let next = window.takeNext() { out.append(next) }
            }
            // And a stream whose reads begin there.
            let pair = try Pair()
            let gate = Gate()
            let hub = try makeHub(driver, reads: 3) {
                $0.firstNumber = SequenceNumber(first)
                $0.probe = holding(first, until: 0, gate)
            }
            let sink = Sink()
            try hub.adopt(pair.server, handler: sink)
            let sent = "one,two,six,ten,end."
            try pair.client.say(sent)
            let isThere = eventually { sink.received.count == sent.utf8.count }
            let isClean = hub.stop()
            let got = text(sink.received)
            return Observation(
                happened: out != [first, first &+ 1, 0, 1] || !isThere || got != sent || !isClean
                    || hub.counters.window.early == 0,
                lines: [
                    "completed: \(order.map(String.init).joined(separator: ", "))",
                    "came out:  \(out.map(String.init).joined(separator: ", "))",
                    "a stream whose reads have these numbers: \(got)",
                ])
        })
}
