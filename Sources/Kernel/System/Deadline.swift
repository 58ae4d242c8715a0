import Glibc

/// A moment on the monotonic clock until which a caller is willing to wait.
///
/// A wait takes a deadline, not a length of time: it may be woken early and has to wait for the rest, and only
/// a fixed moment stays true then.
public struct Deadline: Comparable, Sendable {
    /// Nanoseconds on the monotonic clock.
    public let nanoseconds: UInt64

    /// No deadline: wait for ever. Win32 counterpart: `INFINITE`.
    public static let never = Deadline(nanoseconds: .max)

    /// The present moment, which has passed by the time a thread looks: do not wait at all.
    public static var now: Deadline { Deadline(nanoseconds: monotonicNanoseconds()) }

    /// The moment that is `duration` from now. A negative duration has passed already.
    public static func after(_ duration: Duration) -> Deadline {
        let (seconds, attoseconds) = duration.components
        guard seconds >= 0, attoseconds >= 0 else { return Deadline(nanoseconds: 0) }
        guard seconds < 1 << 32 else { return .never }
        return Deadline(
            nanoseconds: monotonicNanoseconds() + UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds)
                / 1_000_000_000)
    }

    /// The moment that comes so much later; for a negative duration this one.
    public func advanced(by duration: Duration) -> Deadline {
        let (seconds, attoseconds) = duration.components
        guard !isNever, seconds < 1 << 32 else { return .never }
        guard seconds >= 0, attoseconds >= 0 else { return self }
        return Deadline(
            nanoseconds: nanoseconds + UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds) / 1_000_000_000)
    }

    /// A time-out as callers give it: nil waits for ever.
    public static func after(_ timeout: Duration?) -> Deadline { timeout.map { .after($0) } ?? .never }

    /// Whether this deadline never passes.
    public var isNever: Bool { nanoseconds == .max }

    /// Whether the moment has come.
    public var hasPassed: Bool { !isNever && monotonicNanoseconds() >= nanoseconds }

    /// Nanoseconds left; 0 when it has passed.
    public var remaining: UInt64 {
        if isNever { return .max }
        let now = monotonicNanoseconds()
        return nanoseconds > now ? nanoseconds - now : 0
    }

    /// The earlier of the two comes first.
    public static func < (a: Deadline, b: Deadline) -> Bool { a.nanoseconds < b.nanoseconds }

    var timespec: timespec {
        Glibc.timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    }
}

/// Nanoseconds on a clock that only goes forward.
public func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// The same clock as it was at the last tick, some milliseconds ago: for less than a tenth of the price.
public func coarseNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
