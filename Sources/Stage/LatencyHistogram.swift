/// Counts how long things took, in a fixed amount of memory; a percentile is read to within 3 %.
public struct LatencyHistogram: Sendable, Equatable {
    // 32 buckets for each doubling: the first 64 are single nanoseconds, then the buckets' width doubles.
    private(set) var counts = [Int](repeating: 0, count: 1_888)

    /// How many times were counted.
    public private(set) var count = 0
    /// The longest time, exactly, in nanoseconds.
    public private(set) var longest = 0

    /// An empty histogram.
    public init() {}

    /// Counts a time. Allocates nothing.
    public mutating func add(nanoseconds: Int) {
        let time = max(nanoseconds, 0)
        counts[LatencyHistogram.bucket(time)] += 1
        count += 1
        longest = max(longest, time)
    }

    /// Adds what another histogram has counted.
    public mutating func merge(_ other: LatencyHistogram) {
        for index in counts.indices { counts[index] += other.counts[index] }
        count += other.count
        longest = max(longest, other.longest)
    }

    /// The time within which this many of a hundred were done; zero if nothing was counted.
    public func percentile(_ percent: Double) -> Duration {
        let wanted = max(1, Int((Double(count) * percent / 100).rounded(.up)))
        var seen = 0
        for (index, number) in counts.enumerated() {
            seen += number
            if seen >= wanted { return .nanoseconds(min(LatencyHistogram.end(of: index), longest)) }
        }
        return .zero
    }

    private static func bucket(_ time: Int) -> Int {
        let shift = max(0, 63 - time.leadingZeroBitCount - 5)
        return shift * 32 + (time >> shift)
    }

    /// The largest time of a bucket.
    private static func end(of bucket: Int) -> Int {
        let shift = max(0, bucket / 32 - 1)
        return ((bucket - shift * 32) << shift) + ((1 << shift) - 1)
    }

    /// All numbers in a line, for another process.
    var line: String {
        let filled = counts.enumerated().filter { $1 > 0 }.map { "\($0):\($1)" }
        return "\(longest) " + filled.joined(separator: ",")
    }

    /// Takes back what ``line`` said.
    init?(line: Substring) {
        let parts = line.split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 2, let longest = Int(parts[0]) else { return nil }
        self.longest = longest
        for pair in parts[1].split(separator: ",") {
            let numbers = pair.split(separator: ":").compactMap { Int($0) }
            guard numbers.count == 2, counts.indices.contains(numbers[0]) else { return nil }
            counts[numbers[0]] = numbers[1]
            count += numbers[1]
        }
    }
}
