import Glibc
import Kernel
import Stage
import ThreadPoolIO

/// ⚠︎ Broken on purpose: an object that counts its callbacks, and waits for them wherever it is asked.
final class BrokenWork: @unchecked Sendable {
    private let monitor = Monitor()
    private var pending = 0  // under the monitor

    func submit(to pool: ThreadPool, _ callback: @escaping @Sendable () -> Void) throws(SystemError) {
        monitor.locked { pending += 1 }
        try pool.submit { [self] _ in
            callback()
            monitor.locked {
                pending -= 1
                monitor.broadcast()
            }
        }
    }

    /// False when it was not so in time: the original has no such bound.
    func waitForCallbacks(within patience: Duration) -> Bool {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while pending > 0 {
                if !monitor.wait(until: deadline) { return pending == 0 }
            }
            return true
        }
    }
}

/// A callback waits for the callbacks of its own object: for itself.
public enum WaitInsideCallback {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "wait-inside-callback",
        title: "a callback waits for the callbacks of its own object, and so for itself",
        broken: { driver in
            let pool = try ThreadPool.on(driver)
            let (work, returned, over) = (BrokenWork(), Counter(), Gate())
            try work.submit(to: pool) {
                if work.waitForCallbacks(within: .milliseconds(100)) { returned.add() }
                over.open()
            }
            over.pass()
            try pool.closeAndWait()
            return Observation(
                happened: returned.value == 0,
                lines: ["a callback waited for the callbacks of its object: given up after 100 ms"])
        },
        fixed: { driver in
            let pool = try ThreadPool.on(driver)
            let (codes, over) = (Codes(), Gate())
            // A callback may close its own object; the group and the pool it may not wait for either.
            let group = PoolGroup()
            let work = Later<PoolWork>()
            work.value = PoolWork(pool, group: group) { _ in
                codes.note { () throws(SystemError) in try work.value!.waitForCallbacks() }
                codes.note { () throws(SystemError) in try group.close() }
                codes.note { () throws(SystemError) in try pool.closeAndWait() }
                work.value!.close()
                over.open()
            }
            try work.value!.submit()
            over.pass()
            let isDone = boundedWait(Gate.patience) { try? group.close() }
            work.value = nil
            try pool.closeAndWait()
            return Observation(
                happened: codes.all != [EDEADLK, EDEADLK, EDEADLK] || !isDone,
                lines: [
                    "a callback waited for its object, its group and its pool: \(SystemError.text(EDEADLK))",
                    "it closed its object, and that was over when it had returned",
                ])
        })

    private final class Later<Value>: @unchecked Sendable {
        // Written before the first callback, and after the last.
        var value: Value?
    }

    private final class Codes: @unchecked Sendable {
        private let lock = Lock()
        private var codes: [Int32] = []
        var all: [Int32] { lock.locked { codes } }
        func note(_ body: () throws(SystemError) -> Void) {
            var code: Int32 = 0
            do throws(SystemError) { try body() } catch { code = error.code }
            lock.locked { codes.append(code) }
        }
    }
}
