import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: one too many is kept, and taking a context lowers the count of buffers.
struct BrokenBoundedList {
    let maximum: Int
    private(set) var kept = 0
    private(set) var freeContexts = 0
    private(set) var freeBuffers = 0

    init(maximum: Int) { self.maximum = maximum }

    mutating func giveBack() {
        guard freeContexts <= maximum else { return }
        kept += 1
        freeContexts += 1
    }

    mutating func take() {
        guard kept > 0 else { return }
        kept -= 1
        freeBuffers -= 1
    }
}

/// The bound of the free list is off by one, and the wrong counter is lowered.
public enum FreeListOffByOne {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "free-list-off-by-one",
        title: "`<=` keeps one more than the maximum, and taking lowers the wrong counter",
        broken: { _ in
            var lines: [String] = []
            var isWrong = false
            for maximum in [0, 1, 8] {
                var list = BrokenBoundedList(maximum: maximum)
                for _ in 0..<20 { list.giveBack() }
                lines.append("maximum \(maximum): 20 given back, \(list.kept) kept")
                isWrong = isWrong || list.kept > maximum
                list.take()
                lines.append(
                    "one taken: counted contexts \(list.freeContexts), buffers \(list.freeBuffers)")
            }
            return Observation(happened: isWrong, lines: lines)
        },
        fixed: { _ in
            var lines: [String] = []
            var isWrong = false
            for maximum in [0, 1, 8] {
                let list = FreeList<CountedContext>(maximumFree: maximum) { CountedContext() }
                let taken = (0..<20).compactMap { _ in list.take() }
                for element in taken { list.giveBack(element) }
                var count = list.counters
                lines.append(
                    "maximum \(maximum): 20 given back, \(count.free) kept, \(count.discarded) let go")
                isWrong = isWrong || count.free != maximum || count.discarded != 20 - maximum
                _ = list.take()
                count = list.counters
                isWrong = isWrong || count.free != max(0, maximum - 1) || count.inUse != 1
                lines.append("one taken: \(count.free) free, \(count.inUse) in use")
            }
            return Observation(happened: isWrong, lines: lines)
        })
}
