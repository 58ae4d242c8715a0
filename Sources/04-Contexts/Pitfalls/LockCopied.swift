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
            let context = Guarded(0)
            let inside = Counter()
            inThreads(4) { _ in
                for _ in 0..<2_000 {
                    context.locked { _ in
                        inside.add()
                        inside.add(-1)
                    }
                }
            }
            return Observation(
                happened: copyable.lock || copyable.monitor || inside.peak != 1,
                lines: [
                    "to the compiler, can a Lock be copied? \(copyable.lock). A Monitor? \(copyable.monitor)",
                    "four threads, 8,000 times: at most \(inside.peak) inside",
                ])
        })

    // Which of the next two is meant is decided by the compiler: of two that fit it takes the one that demands more,
    // and a type that cannot be copied fits the first only. `let copy = lock` for such a type does not compile.

    /// Whether values of a type can be copied.
    public static func isCopyable<T: ~Copyable>(_: T.Type) -> Bool { false }
    /// Whether values of a type can be copied.
    public static func isCopyable<T>(_: T.Type) -> Bool { true }
}
