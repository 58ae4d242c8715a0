import AsyncEvents
import Glibc
import Kernel
import Stage
import Synchronization
import Testing
import ThreadPoolIO

/// A callback's own object: set before it is submitted, and taken away when it is over.
private final class Own: @unchecked Sendable {
    var work: PoolWork?
}

@Suite("Chapter 10: timers and waits", .serialized)
struct Chapter10ThreadPoolIOTimes {
    @Test("I10.4: 10,000 timers over a second, none early and each once, however busy the machine is")
    func spread() async throws {
        try await onAThread {
            let pool = try pool(minimum: 0, idleTime: .milliseconds(20))
            let (early, called, group) = (Counter(), Counter(), PoolGroup())
            let times = (0..<10_000).map { _ in Counter() }
            for (number, time) in times.enumerated() {
                let due = Deadline.after(.microseconds((number * 7_919) % 1_000_000))
                let timer = PoolTimer(pool, group: group) { _ in
                    if !due.hasPassed { early.add() }
                    time.add()
                    called.add()
                }
                try timer.set(due: due)
            }
            #expect(eventually(within: .seconds(30)) { called.value == times.count })
            try group.close()
            #expect(early.value == 0)
            #expect(times.allSatisfy { $0.value == 1 })
            #expect(pool.counters.cancelled == 0)
            try pool.closeAndWait()
        }
    }

    @Test("I10.4: 10,000 due at once are all called, and a cancelled one is not")
    func atOnce() async throws {
        try await onAThread {
            let (pool, called, wrong, group) = (try pool(), Counter(), Counter(), PoolGroup())
            let due = Deadline.after(.seconds(1))
            for number in 0..<10_000 {
                let isTakenBack = number % 10 == 0
                let timer = PoolTimer(pool, group: group) { _ in
                    if isTakenBack { wrong.add() } else { called.add() }
                }
                try timer.set(due: isTakenBack ? .after(.seconds(100)) : due)
                if isTakenBack { timer.cancel() }
            }
            #expect(eventually(within: .seconds(30)) { called.value == 9_000 })
            try group.close()
            #expect(wrong.value == 0)
            try pool.closeAndWait()
        }
    }

    @Test("a nearer timer wakes a thread that waits for a later one, or for ever")
    func nearer() async throws {
        try await onAThread {
            let (pool, near, far) = (try pool(idleTime: .seconds(100)), Gate(), Counter())
            try pool.submit { _ in }
            #expect(eventually { pool.counters.callbacks == 1 })
            let late = PoolTimer(pool) { _ in far.add() }
            let early = PoolTimer(pool) { _ in near.open() }
            try late.set(after: .seconds(100))
            try early.set(after: .milliseconds(5))
            #expect(near.pass())
            #expect(late.isSet && far.value == 0)
            try pool.closeAndWait()
        }
    }

    @Test("I10.4: a thread that always finds the next packet looks at the timers all the same")
    func alwaysBusy() async throws {
        try await onAThread {
            let (pool, fired) = (try pool(minimum: 1, maximum: 1), Gate())
            // Two that go round: when one is called, the other is queued.
            let own = Own()
            let again = PoolWork(pool) { _ in
                if !fired.isOpen { try? own.work?.submit() }
            }
            own.work = again
            for _ in 0..<2 { try again.submit() }
            try PoolTimer(pool) { _ in fired.open() }.set(after: .milliseconds(20))
            #expect(fired.pass())
            fired.open()
            try again.waitForCallbacks()
            own.work = nil
            try pool.closeAndWait()
        }
    }

    @Test("a periodic timer makes nothing up: not more callbacks than periods have passed")
    func period() async throws {
        try await onAThread {
            let (pool, called) = (try pool(), Counter())
            let timer = PoolTimer(pool) { _ in
                called.add()
                if called.value == 3 { usleep(30_000) }
            }
            let start = monotonicNanoseconds()
            try timer.set(after: .milliseconds(5), period: .milliseconds(5))
            #expect(eventually { called.value >= 10 })
            timer.cancel()
            try timer.waitForCallbacks()
            let passed = (monotonicNanoseconds() - start) / 5_000_000
            #expect(called.value <= passed)
            let last = called.value
            usleep(20_000)
            #expect(called.value == last)
            #expect(throws: SystemError.self) { try timer.set(due: .now, period: .zero) }
            try pool.closeAndWait()
        }
    }

    @Test("a wait calls back once for each setting: signalled, or timed out")
    func waits() async throws {
        try await onAThread {
            let (pool, event) = (try pool(), Event(.automatic))
            let (signalled, timedOut) = (Counter(), Counter())
            let wait = PoolWait(pool) { _, result in
                if result == .signalled { signalled.add() } else { timedOut.add() }
            }
            try wait.set(event)
            event.set()
            #expect(eventually { signalled.value == 1 })
            event.set()
            try wait.waitForCallbacks()
            #expect(signalled.value == 1)
            try wait.set(event)
            #expect(eventually { signalled.value == 2 })
            try wait.set(event, until: .after(.milliseconds(5)))
            #expect(eventually { timedOut.value == 1 })
            // Closed while it is set: the event is not eaten.
            try wait.set(event)
            wait.close()
            event.set()
            #expect(event.isSet)
            try pool.closeAndWait()
        }
    }

    @Test("1,000 waits need no thread each")
    func manyWaits() async throws {
        try await onAThread {
            let (pool, called, group) = (try pool(maximum: 4), Counter(), PoolGroup())
            let events = (0..<1_000).map { _ in Event(.automatic) }
            for event in events {
                try PoolWait(pool, group: group) { _, _ in called.add() }.set(event)
            }
            #expect(pool.counters.peak <= 4)
            for event in events { event.set() }
            #expect(eventually { called.value == 1_000 })
            try group.close()
            try pool.closeAndWait()
        }
    }

    @Test(
        "I10.3: setting, cancelling, timing out and closing at once: each signal is a callback, or is left in the event"
    )
    func waitRaces() async throws {
        try await onAThread {
            let (pool, event, signalled, isOver) = (try pool(), Event(.automatic), Counter(), Gate())
            let waits = (0..<3).map { _ in
                PoolWait(pool) { _, result in if result == .signalled { signalled.add() } }
            }
            let sets = Counter()
            let setter = startThread("setter") {
                while !isOver.isOpen {
                    // Only when the last one has been taken, so that each is one signal.
                    if !event.isSet {
                        event.set()
                        sets.add()
                    }
                }
            }
            inThreads(3) { number in
                var random = SystemRandomNumberGenerator()
                for _ in 0..<2_000 {
                    switch random.next() % 4 {
                    case 0: waits[number].cancel()
                    case 1: try? waits[number].waitForCallbacks()
                    case 2: try? waits[number].set(event, until: .after(.microseconds(20)))
                    default: try? waits[number].set(event)
                    }
                }
                waits[number].close()
                try? waits[number].waitForCallbacks()
            }
            isOver.open()
            setter.join()
            #expect(signalled.value + (event.isSet ? 1 : 0) == sets.value)
            try pool.closeAndWait()
        }
    }

    @Test("I10.3: after cancel and wait no callback comes, whatever sets the event meanwhile")
    func cancelAndWait() async throws {
        try await onAThread {
            let (pool, event, late, isOver) = (try pool(), Event(.automatic), Counter(), Gate())
            let freed = Atomic<Bool>(true)
            let setter = startThread("setter") { while !isOver.isOpen { event.set() } }
            let wait = PoolWait(pool) { _, _ in if freed.load(ordering: .acquiring) { late.add() } }
            for _ in 0..<1_000 {
                freed.store(false, ordering: .releasing)
                try wait.set(event, until: .after(.microseconds(30)))
                wait.cancel()
                try wait.waitForCallbacks(cancelling: true)
                freed.store(true, ordering: .releasing)
            }
            isOver.open()
            setter.join()
            #expect(late.value == 0)
            try pool.closeAndWait()
        }
    }
}
