import Glibc
import Kernel
import Stage
import ThreadPoolIO

/// Callbacks that block take all threads of the pool.
public enum CallbackBlocksPool {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "callback-blocks-pool",
        title: "two callbacks block, and the pool's two threads are gone",
        broken: { driver in
            // ⚠︎ Broken on purpose: as many threads as processors, and never more.
            let brokenPool = try ThreadPool.on(driver, minimum: 2, maximum: 2)
            let seen = try block(brokenPool, callbacks: 2)
            return Observation(
                happened: !seen.hasThirdBegun && seen.threads == 2,
                lines: [
                    "2 callbacks stood at a gate on a pool of 2 threads",
                    "the third callback had not begun after 100 ms",
                ])
        },
        fixed: { driver in
            let pool = try ThreadPool.on(driver, maximum: 4, idleTime: .milliseconds(20))
            let seen = try block(pool, callbacks: 2)
            let full = try ThreadPool.on(driver, maximum: 4, idleTime: .milliseconds(20))
            let atMaximum = try block(full, callbacks: 4)
            return Observation(
                happened: !seen.hasThirdBegun || atMaximum.hasThirdBegun || atMaximum.threads != 4
                    || !seen.hasShrunk || !atMaximum.hasShrunk,
                lines: [
                    "2 callbacks stood at a gate on a pool of up to 4 threads: "
                        + (seen.hasThirdBegun
                            ? "a third thread called the third" : "the third was not called"),
                    "4 of them stood there: the pool had grown to \(atMaximum.threads), and the fifth "
                        + (atMaximum.hasThirdBegun ? "did not wait" : "waited"),
                    "the gate opened: everything was called, and of both pools \(seen.left) and "
                        + "\(atMaximum.left) threads stayed",
                ])
        })

    private struct Seen {
        var hasThirdBegun = false
        var threads = 0
        var hasShrunk = false
        var left = 0
    }

    /// So many callbacks at a gate, and one more. Ends the pool.
    private static func block(_ pool: ThreadPool, callbacks: Int) throws -> Seen {
        let (begun, gate, last) = (Counter(), Gate(), Gate())
        for _ in 0..<callbacks {
            try pool.submit { _ in
                begun.add()
                gate.pass()
            }
        }
        guard eventually(within: Gate.patience / 2, { begun.value == callbacks }) else {
            throw SystemError(ETIMEDOUT, attempted: "block \(callbacks) callbacks; \(pool.counters)")
        }
        try pool.submit { _ in last.open() }
        var seen = Seen()
        let grows = pool.options.maximum > callbacks
        seen.hasThirdBegun = last.pass(within: grows ? Gate.patience : .milliseconds(100))
        seen.threads = pool.counters.threads
        gate.open()
        let isCalled = last.pass()
        seen.hasShrunk = isCalled && eventually { pool.counters.threads == pool.options.minimum }
        seen.left = pool.counters.threads
        try pool.closeAndWait()
        return seen
    }
}
