import Glibc
import Contexts
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: each step is locked, and between the look at the window and the change anybody may come.
final class BrokenUnlockedWindow: Sendable {
    private let waiting = Guarded<[Int: String]>([:])
    private let expected = Guarded(0)
    let delivered = Guarded<[String]>([])

    func put(_ number: Int, _ text: String) { waiting.locked { $0[number] = text } }

    func handOver(afterTheFirstLook: () -> Void) {
        var isFirst = true
        while let next = waiting.locked({ $0[expected.locked { $0 }] }) {
            if isFirst { afterTheFirstLook() }
            isFirst = false
            delivered.locked { $0.append(next) }
            expected.locked { $0 += 1 }
        }
    }
}

/// The window is looked at and changed without one lock around both.
public enum ReorderWindowUnlocked {
    private static let chunks = 20_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "reorder-window-unlocked",
        title: "two workers look into the window at the same time, and both find the same chunk",
        broken: { _ in
            let window = BrokenUnlockedWindow()
            window.put(0, "one,")
            window.put(1, "two,")
            let bothHaveLooked = Barrier(2)
            inThreads(2, named: "worker") { _ in window.handOver { bothHaveLooked.arrive() } }
            let got = window.delivered.locked { $0 }
            return Observation(
                happened: got.count { $0 == "one," } == 2,
                lines: ["sent:      one,two,", "delivered: \(got.joined())"])
        },
        fixed: { driver in
            let pair = try Pair()
            var probe = StreamProbe()
            // Whoever has a packet lets somebody else go first, every now and then.
            probe.arrived = { if $0.number.value % 3 == 0 { sched_yield() } }
            // The first worker at the window stays in front of it until a second is there, too.
            let isInFront = Counter()
            let second = Gate(count: 2)
            let cameBetween = Guarded<Bool?>(nil)
            probe.placed = { _ in
                second.open()
                guard isInFront.add() == 1 else { return }
                let passed = second.pass(within: .milliseconds(200))
                cameBetween.locked { $0 = passed }
            }
            let hub = try makeHub(driver, reads: 8, workers: 4, capacity: 16) { $0.probe = probe }
            let sink = Sink()
            try hub.adopt(pair.server, handler: sink)
            let sent = (0..<16 * chunks).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
            try pair.client.say(sent)
            try pair.client.shutDownSending()
            let isOver = sink.over.pass(within: .seconds(30))
            let isClean = hub.stop()
            let window = hub.counters.window
            let between = cameBetween.locked { $0 }
            return Observation(
                happened: between != false || !isOver || !isClean || sink.received != sent
                    || window.mostWaiting > 8,
                lines: [
                    "one worker waits in front of the window: "
                        + (between == false ? "nobody else gets there" : "another one gets there, too"),
                    "\(readable(chunks)) chunks through the window of one connection, four workers",
                    "\(readable(window.early)) came early, at most \(window.mostWaiting) waited, "
                        + (sink.received == sent
                            ? "each was delivered once and in order" : "and the bytes are WRONG"),
                ])
        })
}
