import Kernel

/// Rounds that end what has lasted too long, and that must not judge by a clock which went on while this program did
/// not.
///
/// A program is stopped for a while: by a debugger, with its whole machine, for want of a processor. When it goes on,
/// every limit has passed, and the bytes that would have kept those limits lie unread in the system. So a round that
/// comes far too late does not judge. It lets the workers look at what has come, and the next one judges (I3.11).
///
/// A value of the one thread that makes the rounds.
public struct JudgingRounds: Sendable {
    private let interval: UInt64
    private var looks = 0
    /// Nothing is judged before; nanoseconds on the monotonic clock.
    public private(set) var earliest: UInt64 = 0

    /// Rounds in a row that only look, at most. A machine that is late every time is slow, and nothing waits for ever.
    public static let maximumLooks = 4

    /// Rounds that come at least so often. One is far too late when it comes half of that later.
    public init(every interval: Duration) {
        self.interval = UInt64(clamping: Int64(interval / .nanoseconds(1)))
    }

    /// Whether the round may judge that begins now.
    ///
    /// - Parameters:
    ///   - start: When the thread began to wait for this round; nanoseconds on the monotonic clock.
    ///   - now: The present moment on the same clock.
    public mutating func mayJudge(after start: UInt64, at now: UInt64) -> Bool {
        if now >= start, now - start > interval + interval / 2, looks < JudgingRounds.maximumLooks {
            looks += 1
            earliest = now + interval
            return false
        }
        guard now >= earliest else { return false }
        looks = 0
        return true
    }
}
