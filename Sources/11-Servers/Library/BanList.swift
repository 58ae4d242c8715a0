import Kernel

/// The addresses that may not connect: single ones and ranges.
///
/// It is a value, and a set of addresses rather than a record of calls: ranges are kept sorted, apart from each other and as few as
/// there can be. Who bans 10.0.0.0/9 and 10.128.0.0/9 has banned 10.0.0.0/8, and who takes one address out of a range leaves the
/// rest of the range banned. An IPv4 address is the same one on a listener for both families (`::ffff:10.0.0.1`).
///
/// A question costs some twenty comparisons with a million ranges; a change costs a move of those behind it.
///
/// Counterpart in the article: `BanIPList`, of single addresses.
public struct BanList: Sendable, Equatable, CustomStringConvertible {
    /// The ranges, IPv4 before IPv6, each in ascending order. No address is in two of them.
    public private(set) var ranges: [AddressRange] = []

    /// A list that bans nobody.
    public init() {}

    /// A list that bans these.
    public init(_ ranges: some Sequence<AddressRange>) {
        for range in ranges { add(range) }
    }

    /// Whether nobody is banned.
    public var isEmpty: Bool { ranges.isEmpty }

    /// Whether the address is banned; its port does not matter.
    public func contains(_ address: Address) -> Bool { contains(AddressRange(address)) }

    /// Whether the whole range is banned.
    public func contains(_ range: AddressRange) -> Bool {
        // The last one that begins at or before it, a wider one among them.
        let place = place(of: range)
        return (place < ranges.count && ranges[place] == range)
            || (place > 0 && ranges[place - 1].contains(range))
    }

    /// Bans the addresses of a range.
    public mutating func add(_ range: AddressRange) {
        guard !contains(range) else { return }
        ranges.removeSubrange(those(in: range))
        var whole = range
        // Two halves are one range, and that may be the half of another.
        while let sibling = whole.sibling {
            let place = place(of: sibling)
            guard place < ranges.count, ranges[place] == sibling else { break }
            ranges.remove(at: place)
            whole = whole.widened(to: whole.prefix - 1)
        }
        ranges.insert(whole, at: place(of: whole))
    }

    /// Lets the addresses of a range in again. The rest of a wider one that they were in stays banned.
    public mutating func remove(_ range: AddressRange) {
        let inside = those(in: range)
        ranges.removeSubrange(inside)
        guard inside.isEmpty, inside.lowerBound > 0 else { return }
        let wider = ranges[inside.lowerBound - 1]
        guard wider.contains(range) else { return }
        ranges.remove(at: inside.lowerBound - 1)
        // From the wide one down to this: the other half each time.
        for prefix in wider.prefix + 1...range.prefix {
            guard let other = range.widened(to: prefix).sibling else { continue }
            ranges.insert(other, at: place(of: other))
        }
    }

    /// Lets everybody in again.
    public mutating func clear() { ranges = [] }

    /// What drops their requests without a word; nil when so many ranges do not fit into one filter. Then only the check at the
    /// accept is left.
    public var filter: SocketFilter? { SocketFilter(dropping: ranges) }

    /// The ranges as they are written, with spaces between.
    public var description: String { ranges.map(\.description).joined(separator: " ") }

    /// Where a range is, or would be.
    private func place(of range: AddressRange) -> Int {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = low + (high - low) / 2
            if ranges[middle] < range { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Those that lie wholly within a range. They are neighbours.
    private func those(in range: AddressRange) -> Range<Int> {
        let start = place(of: range)
        var end = start
        while end < ranges.count, range.contains(ranges[end]) { end += 1 }
        return start..<end
    }
}
