import Kernel

/// How a client comes back when its connection is gone: soon, then less and less often, and never all of them at once.
public struct Reconnection: Sendable, Equatable {
    /// The first pause, by how much each is longer than the last, and the longest.
    public var first = Duration.milliseconds(100), factor = 2.0, longest = Duration.seconds(30)
    /// By how much of itself a pause is shortened or lengthened, by chance: 0 to 1.
    public var jitter = 0.5
    /// Attempts in a row before it gives up; nil: never.
    public var attempts: Int?
    /// Where chance begins; nil: anywhere. The same seed gives the same pauses.
    public var seed: UInt64?

    /// The defaults.
    public init() {}
}

/// The pauses of one client: a value, without a clock.
package struct Pauses {
    private let policy: Reconnection
    private var random: UInt64
    /// Attempts since the last connection stood.
    package private(set) var attempt = 0

    package init(_ policy: Reconnection) {
        self.policy = policy
        random = policy.seed ?? .random(in: 0 ... .max)
    }

    /// The pause before the next attempt; nil when there is to be none.
    package mutating func next() -> Duration? {
        if let most = policy.attempts, attempt >= most { return nil }
        attempt += 1
        var pause = policy.first / .nanoseconds(1)
        for _ in 1..<max(1, min(attempt, 64)) {
            pause = min(pause * policy.factor, policy.longest / .nanoseconds(1))
        }
        // SplitMix64: good enough to keep clients apart, and the same everywhere.
        random &+= 0x9E37_79B9_7F4A_7C15
        var bits = random
        bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
        let chance = Double((bits ^ (bits >> 31)) >> 11) / Double(1 << 53)
        return .nanoseconds(Int64(pause * (1 + policy.jitter * (2 * chance - 1))))
    }

    /// A connection stands: the next pause is the first again.
    package mutating func begin() { attempt = 0 }
}
