import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a context that holds its lock as plain memory, like everything else in it. Whoever copies the
/// context copies the lock.
struct BrokenContext {
    private(set) var lock = pthread_mutex_t()
    var messages = 0

    init() { pthread_mutex_init(&lock, nil) }

    mutating func tryLock() -> Bool { pthread_mutex_trylock(&lock) == 0 }
}

/// A lock is copied with its context: then there are two, and each lets somebody in.
public enum LockCopied {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "lock-copied",
        title: "a context is copied with its lock, and then each copy lets somebody in",
        broken: { _ in
            var context = BrokenContext()
            // Cleared and put back, or moved in an array that grows.
            var copy = context
            let first = context.tryLock()
            let second = copy.tryLock()
            return Observation(
                happened: first && second,
                lines: ["the context's lock is held: \(first)", "at the same time its copy's: \(second)"])
        },
        fixed: { _ in
            let copyable = (lock: isCopyable(Lock.self), monitor: isCopyable(Monitor.self))
            let inside = mostInside(Guarded(0))
            return Observation(
                happened: copyable.lock || copyable.monitor || !isCopyable(Int.self) || inside != 1,
                lines: [
                    "to the compiler, can a Lock be copied? \(copyable.lock). A Monitor? \(copyable.monitor)",
                    "one thread is inside and waits for another to come in, too: at most \(inside) inside",
                ])
        })

    /// How many of two threads are inside a lock at a time. The first waits there for the second, in vain.
    private static func mostInside(_ context: Guarded<Int>) -> Int {
        let inside = Counter()
        let bothAreIn = Gate(count: 2)
        inThreads(2) { _ in
            context.locked { _ in
                inside.add()
                bothAreIn.open()
                bothAreIn.pass(within: .milliseconds(200))
                inside.add(-1)
            }
        }
        return inside.peak
    }

    // Which of the next two is meant is decided by the compiler: of two that fit it takes the one that demands more,
    // and a type that cannot be copied fits the first only. `let copy = lock` for such a type does not compile.

    /// Whether values of a type can be copied.
    public static func isCopyable<T: ~Copyable>(_: T.Type) -> Bool { false }
    /// Whether values of a type can be copied.
    public static func isCopyable<T>(_: T.Type) -> Bool { true }
}
