import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: locks its own context and then the other's. (It gives up after a while, so that the rest of
/// the program can go on; a lock that waits for ever would not.)
final class BrokenNestedLocks: @unchecked Sendable {
    // Two mutexes that stay where they are, freed with this object.
    private let mutexes = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 2)

    init() { for index in 0..<2 { pthread_mutex_init(mutexes + index, nil) } }

    deinit {
        for index in 0..<2 { pthread_mutex_destroy(mutexes + index) }
        mutexes.deallocate()
    }

    /// Returns false when the second lock was not to be had within `milliseconds`.
    func lock(_ own: Int, then other: Int, milliseconds: Int, _ hasFirst: () -> Void, _ hasTried: () -> Void)
        -> Bool
    {
        pthread_mutex_lock(mutexes + own)
        defer { pthread_mutex_unlock(mutexes + own) }
        hasFirst()
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        time.tv_nsec += milliseconds * 1_000_000
        time.tv_sec += time.tv_nsec / 1_000_000_000
        time.tv_nsec %= 1_000_000_000
        let isLocked = pthread_mutex_timedlock(mutexes + other, &time) == 0
        hasTried()
        if isLocked { pthread_mutex_unlock(mutexes + other) }
        return isLocked
    }
}

/// Two workers lock two contexts in opposite order: rule of thumb 2.
public enum NestedContextLocks {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "nested-context-locks",
        title: "two workers lock two contexts in opposite order and wait for each other for ever",
        broken: { _ in
            let contexts = BrokenNestedLocks()
            let (bothHaveOne, bothHaveTried) = (Barrier(2), Barrier(2))
            let stuck = Counter()
            inThreads(2, named: "worker") { index in
                let isLocked = contexts.lock(index, then: 1 - index, milliseconds: 200) {
                    bothHaveOne.arrive()
                } _: {
                    bothHaveTried.arrive()
                }
                if !isLocked { stuck.add() }
            }
            return Observation(
                happened: stuck.value == 2,
                lines: [
                    "each of two workers had one lock and waited 200 ms for the other's",
                    "stuck: \(stuck.value)",
                ])
        },
        fixed: { driver in
            let (one, other) = (Guarded(100), Guarded(100))
            let barrier = Barrier(2)
            let isThrough = boundedWait(Gate.patience) {
                inThreads(2, named: "worker") { index in
                    let (from, to) = index == 0 ? (one, other) : (other, one)
                    for _ in 0..<1_000 {
                        barrier.arrive()
                        Guarded.both(from, to) { from, to in
                            from -= 1
                            to += 1
                        }
                    }
                }
            }
            // If they wait for each other for ever, nobody gets in any more.
            let sum = isThrough ? one.locked { $0 } + other.locked { $0 } : 0
            let delivered = try byMessage(driver)
            let isOrdered = waitsWithoutTheYounger(isTurned: false) && waitsWithoutTheYounger(isTurned: true)
            return Observation(
                happened: !isThrough || sum != 200 || delivered != 200 || !isOrdered,
                lines: [
                    "in one order for everybody: 2,000 exchanges in opposite directions, the sum is \(sum)",
                    "who waits for the older lock, by whichever order of words, has not got the younger: \(isOrdered)",
                    "by message: the owner of the other context did \(delivered) of 200 changes",
                ])
        })

    /// Holds the older lock while somebody asks for both, and says whether the younger is free meanwhile.
    private static func waitsWithoutTheYounger(isTurned: Bool) -> Bool {
        let (older, younger) = (Guarded(0), Guarded(0))
        let waiter = Counter()
        let (thread, isFree) = older.locked { _ in
            let thread = startThread("waiter") {
                waiter.add(Int(Kernel.Thread.currentID))
                let (one, other) = isTurned ? (younger, older) : (older, younger)
                Guarded.both(one, other) { _, _ in }
            }
            var looks = 0
            let isWaiting = eventually {
                let id = Int32(waiter.value)
                looks = id != 0 && Kernel.Thread.state(of: id) == .blocked ? looks + 1 : 0
                return looks == 5
            }
            return (thread, isWaiting && boundedWait(.milliseconds(500)) { younger.locked { _ in } })
        }
        thread.join()
        return isFree
    }

    /// Nobody touches another's context: what is to be done there is posted to the port, and done under that one lock.
    private static func byMessage(_ driver: DriverKind) throws -> Int {
        let port = try CompletionPort.on(driver)
        let contexts = [Guarded(0), Guarded(0)]
        let workers = try WorkerGroup(2, on: port) { packet, _ in contexts[Int(packet.key)].locked { $0 += 1 }
        }
        inThreads(2, named: "sender") { index in
            for _ in 0..<100 {
                contexts[index].locked { _ in try? port.post(key: UInt(1 - index)) }
            }
        }
        workers.stop()
        return contexts.reduce(0) { sum, context in sum + context.locked { $0 } }
    }
}
