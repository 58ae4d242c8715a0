import Contexts
import Kernel
import Stage
import Synchronization

/// ⚠︎ Broken on purpose: a free list that believes everybody.
struct BrokenFreeList<Element: AnyObject> {
    private var elements: [Element] = []

    mutating func giveBack(_ element: Element) { elements.append(element) }
    mutating func take() -> Element? { elements.popLast() }
}

/// A context is in the free list twice, and two connections get it.
public enum FreeListDuplicate {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "free-list-duplicate",
        title: "a context is given back twice, and two connections share it from then on",
        broken: { _ in
            var list = BrokenFreeList<CountedContext>()
            let context = CountedContext()
            // Two packets failed, and each thought that it was the last.
            list.giveBack(context)
            list.giveBack(context)
            let (one, other) = (list.take(), list.take())
            return Observation(
                happened: one != nil && one === other,
                lines: ["given back twice, taken twice: both clients have the same context"])
        },
        fixed: { _ in underLoad(rounds: 20_000) })

    /// An element that knows how many have it.
    private final class Watched: Pooled, @unchecked Sendable {
        var link = PoolLink()
        let owners = Counter()
    }

    /// Four threads take and give back; an element never has two owners. That a second giving back is stopped at once
    /// is shown by `giveBackTwice`.
    public static func underLoad(rounds: Int) -> Observation {
        let list = FreeList<Watched>(maximumFree: 3, maximumInUse: 6) { Watched() }
        let shared = Counter()
        let taken = Counter()
        inThreads(4, named: "taker") { _ in
            for _ in 0..<rounds {
                var mine: [Watched] = []
                for _ in 1...2 {
                    guard let element = list.take() else { continue }
                    taken.add()
                    if element.owners.add() != 1 { shared.add() }
                    mine.append(element)
                }
                for element in mine {
                    element.owners.add(-1)
                    list.giveBack(element)
                }
            }
        }
        let count = list.counters
        return Observation(
            happened: shared.value > 0 || count.inUse != 0 || count.free > 3 || count.peak > 6,
            lines: [
                "four threads took \(readable(taken.value)) times; elements with two owners: \(shared.value)",
                "afterwards in use: \(count.inUse), free: \(count.free); at most in use: \(count.peak) of 6",
            ])
    }

    /// Gives an element back twice, also when the list has not kept it the first time, or no longer. The second time
    /// stops the program, in the place where the mistake is.
    public static func giveBackTwice(kept: Int, trims: Bool) {
        let list = FreeList<Watched>(maximumFree: kept) { Watched() }
        guard let element = list.take() else { return }
        list.giveBack(element)
        if trims { list.trim() }
        list.giveBack(element)
    }
}
