import AsyncEvents
import Glibc
import Kernel
import Stage

/// A thread waits for an event that nobody sets, with a deadline that lies a fraction of a millisecond ahead.
enum EarlyTimer {
    static let pitfall = Pitfall(
        slug: "early-timer",
        title: "a wait returns a little before its deadline, and the caller takes it for a time-out",
        broken: { _ in broken() }, fixed: { _ in fixed() })

    private static let tries = 50
    private static let time = Duration.microseconds(900)

    static func broken() -> Observation {
        measured { BrokenTimedWait.wait(until: $0) }
    }

    static func fixed() -> Observation {
        let event = Event(.automatic)
        return measured { event.wait(until: $0) == .timedOut }
    }

    /// How often, and how much, a wait said that it was late before it was.
    private static func measured(_ wait: (Deadline) -> Bool) -> Observation {
        var (early, most, others) = (0, UInt64(0), 0)
        for _ in 0..<tries {
            let deadline = Deadline.after(time)
            if !wait(deadline) { others += 1 }
            let left = deadline.remaining
            if left > 0 { early += 1 }
            most = max(most, left)
        }
        return Observation(
            happened: early > 0 || others > 0,
            lines: [
                "\(tries) waits of 900 µs: \(early) of them timed out before their deadline"
                    + (early > 0 ? ", by up to \(most / 1_000) µs" : "")
            ])
    }
}

/// Counts in whole milliseconds, and believes the first wake-up.
enum BrokenTimedWait {
    static func wait(until deadline: Deadline) -> Bool {
        poll(nil, 0, Int32(deadline.remaining / 1_000_000)) == 0
    }
}
