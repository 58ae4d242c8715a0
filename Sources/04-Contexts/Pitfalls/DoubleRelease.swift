import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: lowers the counts under the lock, and looks at them without it.
final class BrokenRelease: @unchecked Sendable {
    private let lock = Lock()
    private var receives = 1  // under the lock, like what follows
    private var sends = 1
    let released = Counter()

    func packetHandled(isSend: Bool, beforeLooking: () -> Void) {
        lock.locked { if isSend { sends -= 1 } else { receives -= 1 } }
        beforeLooking()
        // Here the other worker may be.
        if lock.locked({ receives }) == 0 && lock.locked({ sends }) == 0 { released.add() }
    }
}

/// Two workers both find nothing pending, and both release.
public enum DoubleRelease {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "double-release",
        title: "two workers lower the count, then both look, and both release the context",
        broken: { _ in
            let context = BrokenRelease()
            let barrier = Barrier(2)
            inThreads(2, named: "worker") { index in
                context.packetHandled(isSend: index == 1) { barrier.arrive() }
            }
            return Observation(
                happened: context.released.value == 2,
                lines: [
                    "a receive and a send failed, and two workers had a packet each",
                    "how often the context was released: \(context.released.value)",
                ])
        },
        fixed: { _ in
            var seen = race(closes: 100_000)
            let releases = atTheWorstMoment()
            seen.happened = seen.happened || releases != 1
            seen.lines.append("one more, where each worker waits for the other before it looks: \(releases)")
            return seen
        })

    /// Whoever has lowered the number waits a while for the other to have lowered it, too. It waits in vain.
    private static func atTheWorstMoment() -> Int {
        let context = CountedContext()
        guard context.enter() else { return 0 }
        let releases = Counter()
        let bothHaveLowered = Gate(count: 2)
        inThreads(2, named: "worker") { _ in
            let isLast = context.leave {
                bothHaveLowered.open()
                bothHaveLowered.pass(within: .milliseconds(200))
            }
            if isLast { releases.add() }
        }
        return releases.value
    }

    /// As many contexts, each with two packets on their way, handled by two workers at once.
    public static func race(closes: Int) -> Observation {
        let contexts = (0..<closes).map { _ in CountedContext() }
        for context in contexts where !context.enter() { return Observation(happened: true, lines: []) }
        let releases = (0..<2).map { _ in Counter() }
        let barrier = Barrier(2)
        inThreads(2, named: "worker") { worker in
            barrier.arrive()
            for context in contexts where context.leave() { releases[worker].add() }
        }
        let (first, second) = (releases[0].value, releases[1].value)
        let wrong = contexts.filter { $0.shares.now != 0 || $0.shares.lowest != 0 }.count
        return Observation(
            happened: first + second != closes || wrong != 0,
            lines: [
                "\(readable(closes)) contexts, each closed by two workers at once",
                "released: \(readable(first + second)) (\(readable(first)) by one worker, "
                    + "\(readable(second)) by the other); wrong counts: \(wrong)",
            ])
    }
}
