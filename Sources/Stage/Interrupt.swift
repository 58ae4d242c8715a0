import CKernel
import Glibc
import Kernel

/// Turns Ctrl-C (SIGINT), SIGTERM and the end of the terminal (SIGHUP) into something that can be waited for, so that
/// `--serve` can end in good order.
public struct Interrupt: Sendable {
    /// Keeps these signals from ending the program. To be made before the program starts threads: they inherit it.
    public init() {
        var signals = Interrupt.signals
        pthread_sigmask(SIG_BLOCK, &signals, nil)
    }

    /// Waits for one of the signals. Once one has come, another one ends the program as usual.
    /// - Parameter limit: how long to wait; `nil` waits for ever.
    /// - Returns: `false` if none came in time.
    public func wait(within limit: Duration? = nil) -> Bool {
        let deadline = Deadline.after(limit)
        var signals = Interrupt.signals
        while true {
            var time = timespec(tv_sec: 3_600, tv_nsec: 0)
            if !deadline.isNever {
                let left = min(deadline.remaining, 3_600_000_000_000)
                time = timespec(tv_sec: Int(left / 1_000_000_000), tv_nsec: Int(left % 1_000_000_000))
            }
            if sigtimedwait(&signals, nil, &time) > 0 {
                pthread_sigmask(SIG_UNBLOCK, &signals, nil)
                return true
            }
            if deadline.hasPassed { return false }
        }
    }

    private static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        // Under `nohup` it is ignored, and stays so: a blocked signal is kept for the thread that waits for it, even then.
        var present = sigaction()
        sigaction(SIGHUP, nil, &present)
        let isIgnored =
            unsafeBitCast(present.__sigaction_handler.sa_handler, to: Int.self)
            == unsafeBitCast(SIG_IGN, to: Int.self)
        if !isIgnored { sigaddset(&set, SIGHUP) }
        return set
    }
}
