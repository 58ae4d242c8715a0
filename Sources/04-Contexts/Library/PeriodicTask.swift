import AsyncEvents
import Kernel
import PrepostedAccepts

/// A thread that does one thing again and again: the clock of whatever has limits.
///
/// What waits too long brings no packet, so it has to be looked for. A part with limits has a function `tick(now:)`, and
/// no thread of its own; this calls it. A round that comes far too late does not call it, and the next one does
/// (`JudgingRounds`): after a pause of the whole program the workers look first at what has come. (I4.8)
public final class PeriodicTask: Sendable {
    private let thread: Kernel.Thread
    private let end = Event(.manual)

    /// Starts the clock. The first round comes after the first pause.
    ///
    /// - Parameters:
    ///   - name: The thread's name; the system keeps 15 bytes of it.
    ///   - interval: The pause between two rounds.
    ///   - clock: Nanoseconds on the monotonic clock. Tests have one of their own.
    ///   - tick: One round: called on the thread of the clock, with the present moment on `clock`.
    /// - Throws: EINVAL for no pause at all, EAGAIN when the system allows no more threads.
    public init(
        _ name: String, every interval: Duration,
        clock: @escaping @Sendable () -> UInt64 = monotonicNanoseconds,
        tick: @escaping @Sendable (_ now: UInt64) -> Void
    ) throws(SystemError) {
        guard interval > .zero else { throw SystemError.invalid("make rounds without a pause") }
        let end = end
        thread = try Kernel.Thread(name) {
            var rounds = JudgingRounds(every: interval)
            while true {
                let start = clock()
                guard end.wait(until: .after(interval)) == .timedOut else { return }
                let now = clock()
                if rounds.mayJudge(after: start, at: now) { tick(now) }
            }
        }
    }

    /// Ends the clock and waits for a round that is being made. Not to be called by `tick`.
    public func stop() {
        end.set()
        thread.join()
    }

    // Without this a clock that is let go would run for ever.
    deinit { end.set() }
}
