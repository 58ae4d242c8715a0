import CKernel
import Contexts
import Glibc
import Kernel
import PrepostedAccepts
import Stage
import Testing

/// What chapters behind this one rely on: the table of connections, and the clock of what has limits.
@Suite("Chapter 04: the registry and the clock")
struct Chapter04ContextsRegistry {
    final class Member: Sendable {
        let id = ConnectionID.next()
    }

    @Test("I4.7: the limit is exact, a refusal is counted, and a place that is free again is given again")
    func limit() throws {
        let registry = ConnectionRegistry<Member>(limit: 2)
        let (first, second, third) = (Member(), Member(), Member())
        try registry.insert(first, as: first.id)
        try registry.insert(second, as: second.id)
        let refusal = #expect(throws: SystemError.self) { try registry.insert(third, as: third.id) }
        #expect(refusal?.code == ENOBUFS)
        #expect(registry.count == 2 && registry.counters.refused == 1 && registry.counters.opened == 2)
        #expect(registry.find(third.id) == nil && registry.find(first.id) === first)
        #expect(registry.remove(first.id, .ended))
        try registry.insert(third, as: third.id)
        #expect(registry.count == 2 && Set(registry.snapshot().map(\.id)) == [second.id, third.id])
        #expect(registry.find(first.id) == nil)
    }

    @Test("I4.4: of many that remove a connection one announces it, and its reason is the one that counts")
    func once() async throws {
        try await onAThread {
            let registry = ConnectionRegistry<Member>(limit: 100)
            let members = (0..<100).map { _ in Member() }
            for member in members { try registry.insert(member, as: member.id) }
            let announced = Counter()
            inThreads(4) { thread in
                for member in members where registry.remove(member.id, thread % 2 == 0 ? .ended : .reset) {
                    announced.add()
                }
            }
            let counters = registry.counters
            #expect(announced.value == 100 && counters.announced == 100)
            #expect(counters.reasons[.ended, default: 0] + counters.reasons[.reset, default: 0] == 100)
            #expect(registry.count == 0 && counters.alive == 100 && counters.peak == 100)
            #expect(!registry.remove(Member().id, .ended), "one that never was in")
        }
    }

    @Test("I4.2: closing all takes none in, closes each once, and waits for announcements or for memory")
    func closeAll() async throws {
        try await onAThread {
            let registry = ConnectionRegistry<Member>(limit: 10)
            let members = (0..<3).map { _ in Member() }
            for member in members { try registry.insert(member, as: member.id) }
            let closed = Counter()
            // A handler that removes a connection late, on another thread.
            let isClosed = Gate(count: 3)
            let late = startThread("removes") {
                isClosed.pass()
                for member in members { registry.remove(member.id, .cancelled) }
            }
            #expect(
                registry.closeAll(until: .announced) { _ in
                    closed.add()
                    isClosed.open()
                })
            late.join()
            #expect(closed.value == 3 && registry.counters.reasons == [.cancelled: 3])
            #expect(!registry.closeAll(within: .milliseconds(1)) { _ in closed.add() }, "three are alive")
            let releasing = startThread("releases") { for _ in 1...3 { registry.released() } }
            #expect(registry.closeAll { _ in closed.add() })
            releasing.join()
            #expect(closed.value == 3 && registry.counters.alive == 0)
            let refusal = #expect(throws: SystemError.self) { try registry.insert(Member(), as: .next()) }
            #expect(refusal?.code == EBADF && registry.counters.refused == 0)
        }
    }

    @Test(
        "I4.8: the clock makes its rounds until it is stopped, and a stop waits for the round that is being made"
    )
    func clock() async throws {
        try await onAThread {
            let (rounds, third, mayEnd) = (Counter(), Gate(), Gate())
            let name = Guarded("")
            let clock = try PeriodicTask("my clock", every: .milliseconds(1)) { now in
                #expect(now <= monotonicNanoseconds())
                if rounds.add() == 3 {
                    name.locked { $0 = ownThreadName() }
                    third.open()
                    mayEnd.pass()
                }
            }
            #expect(third.pass())
            let isStopped = Gate()
            let stopping = startThread("stops") {
                clock.stop()
                isStopped.open()
            }
            #expect(!isStopped.pass(within: .milliseconds(20)))
            mayEnd.open()
            #expect(isStopped.pass())
            stopping.join()
            #expect(rounds.value == 3 && name.locked { $0 } == "my clock")
            #expect(throws: SystemError.self) { try PeriodicTask("no pause", every: .zero) { _ in } }
        }
    }

    @Test("I4.9: what is sent after a long silence has the whole limit for its answer")
    func unanswered() async throws {
        try await onAThread {
            let (dead, living) = (try Pair(), try Pair())
            var peers = UnansweredPeers(limit: .milliseconds(100))
            let (id, other) = (ConnectionID.next(), ConnectionID.next())
            usleep(150_000)
            try dead.client.fallSilent()
            for pair in [dead, living] { try pair.server.say("are you there?") }
            #expect(eventually { living.client.unread > 0 })
            let start = monotonicNanoseconds()
            // The one that lives has answered by then, and is asked nothing more.
            usleep(60_000)
            let first = peers.isGone(other, living.server, now: monotonicNanoseconds())
            peers.endRound()
            usleep(120_000)
            let second = peers.isGone(other, living.server, now: monotonicNanoseconds())
            #expect(!first && !second)
            peers.endRound()
            // The dead one: seen for the first time; nearly too long; too long.
            for (after, isGone) in [(0, false), (99, false), (100, true)] as [(UInt64, Bool)] {
                let now = start + after * 1_000_000
                let found = peers.isGone(id, dead.server, now: now)
                peers.endRound()
                #expect(found == isGone, "after \(after) ms")
            }
            // A round in which it was not asked about: what was known of it is forgotten.
            peers.endRound()
            let isGone = peers.isGone(id, dead.server, now: start + 200_000_000)
            #expect(!isGone)
        }
    }

    @Test(
        "I4.8: a late round looks, the next one judges; a machine that is late every time is judged all the same"
    )
    func lateRounds() {
        var rounds = JudgingRounds(every: .nanoseconds(100))
        let moments: [(start: UInt64, now: UInt64, judges: Bool)] = [
            (1_000, 1_100, true),
            // Half an interval late, and later than that.
            (1_100, 1_250, true), (1_250, 1_401, false),
            // Woken before the workers can have looked, and when they can.
            (1_401, 1_402, false), (1_402, 1_500, false), (1_402, 1_501, true),
        ]
        for moment in moments {
            let judges = rounds.mayJudge(after: moment.start, at: moment.now)
            #expect(judges == moment.judges, "at \(moment.now)")
        }
        for turn in 1...10 {
            let start = UInt64(turn) * 1_000
            let judges = rounds.mayJudge(after: start, at: start + 1_000)
            #expect(judges == (turn % (JudgingRounds.maximumLooks + 1) == 0), "turn \(turn)")
        }
    }
}

private func ownThreadName() -> String {
    var bytes = [UInt8](repeating: 0, count: 16)
    bytes.withUnsafeMutableBytes { _ = ck_prctl(PR_GET_NAME, UInt(bitPattern: $0.baseAddress)) }
    return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
}
