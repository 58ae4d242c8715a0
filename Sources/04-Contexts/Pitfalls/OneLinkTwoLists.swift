import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: an element has one link, and every list uses it.
final class BrokenElement {
    let name: String
    var next: BrokenElement?

    init(_ name: String) { self.name = name }
}

struct BrokenLinkedList {
    private var first: BrokenElement?

    mutating func push(_ element: BrokenElement) {
        element.next = first
        first = element
    }

    var names: [String] {
        var names: [String] = []
        var cursor = first
        while let element = cursor, names.count < 10 {
            names.append(element.name)
            cursor = element.next
        }
        return names
    }
}

/// One next-pointer serves several lists.
public enum OneLinkTwoLists {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "one-link-two-lists",
        title: "a context is put into a second list by the same link, and the first list loses its tail",
        broken: { _ in
            var open = BrokenLinkedList()
            var late = BrokenLinkedList()
            let elements = ["a", "b", "c"].map { BrokenElement($0) }
            for element in elements { open.push(element) }
            let before = open.names
            // "b" is late, too.
            late.push(elements[1])
            let after = open.names
            return Observation(
                happened: before == ["c", "b", "a"] && after != before,
                lines: [
                    "open: \(before)", "\"b\" is put into the list of the late ones, too", "open: \(after)",
                ])
        },
        fixed: { _ in
            let (open, late) = (list(), list())
            let elements = (1...3).compactMap { _ in open.take() }
            for element in elements { open.giveBack(element) }
            let others = (1...3).compactMap { _ in late.take() }
            for element in others { late.giveBack(element) }
            let back = (1...3).compactMap { _ in open.take() }
            let isWhole = Set(back.map { ObjectIdentifier($0) }) == Set(elements.map { ObjectIdentifier($0) })
            return Observation(
                happened: !isWhole || late.counters.free != 3 || late.counters.made != 3,
                lines: [
                    "an element belongs to the list that made it, and its one link says so",
                    "two lists of three, used in turns: \(back.count) and \(late.counters.free), all their own",
                ])
        })

    /// Gives an element of one list to another. That stops the program, in the place where the mistake is.
    public static func giveToAnotherList() {
        let (one, other) = (list(), list())
        if let element = one.take() { other.giveBack(element) }
    }

    private static func list() -> FreeList<CountedContext> { FreeList(maximumFree: 8) { CountedContext() } }
}
