import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: each access is locked, and what is decided in between is not.
final class BrokenBalance: @unchecked Sendable {
    private let lock = Lock()
    private var messages = 0  // under the lock

    var count: Int {
        get { lock.locked { messages } }
        set { lock.locked { messages = newValue } }
    }
}

/// Check-then-act on a context without its lock: rule of thumb 1.
public enum UnlockedContext {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "unlocked-context",
        title: "two workers read, think and write a field of one context, and one of two updates is lost",
        broken: { _ in
            let context = BrokenBalance()
            let bothHaveRead = Barrier(2)
            inThreads(2, named: "worker") { _ in
                let seen = context.count
                bothHaveRead.arrive()
                context.count = seen + 1
            }
            return Observation(
                happened: context.count == 1,
                lines: ["two workers counted a message each", "the context says: \(context.count)"])
        },
        fixed: { _ in
            let context = Guarded(0)
            let bothHaveCome = Barrier(2)
            let rounds = 10_000
            inThreads(2, named: "worker") { _ in
                bothHaveCome.arrive()
                for _ in 0..<rounds { context.locked { $0 += 1 } }
            }
            let count = context.locked { $0 }
            let once = atTheWorstMoment()
            return Observation(
                happened: count != 2 * rounds || once != 2,
                lines: [
                    "two workers counted \(readable(rounds)) messages each",
                    "the context says: \(readable(count))",
                    "one each, and the second came while the first was counting: \(once)",
                ])
        })

    /// The first worker has read, and waits a while for the second to read, too. It waits in vain.
    private static func atTheWorstMoment() -> Int {
        let context = Guarded(0)
        let (firstHasRead, secondHasRead) = (Gate(), Gate())
        inThreads(2, named: "worker") { index in
            if index == 1 { firstHasRead.pass() }
            context.locked { messages in
                let seen = messages
                if index == 0 {
                    firstHasRead.open()
                    secondHasRead.pass(within: .milliseconds(200))
                } else {
                    secondHasRead.open()
                }
                messages = seen + 1
            }
        }
        return context.locked { $0 }
    }
}
