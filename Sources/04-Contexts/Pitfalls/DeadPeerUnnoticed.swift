import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: leaves it to the client to say when it is over.
struct BrokenTrust {
    func watch(_ port: CompletionPort, for time: Duration) -> Int {
        var packets = 0
        let deadline = Deadline.after(time)
        while !deadline.hasPassed {
            if (try? port.next(within: .milliseconds(50))) != nil { packets += 1 }
        }
        return packets
    }
}

/// The peer vanished without a word, and no completion ever comes.
public enum DeadPeerUnnoticed {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "dead-peer-unnoticed",
        title: "the other side vanishes without a word, and the pending receive waits for ever",
        broken: { driver in
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 1)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            try pair.client.fallSilent()
            let time = Duration.milliseconds(500)
            let packets = BrokenTrust().watch(port, for: time)
            let isPending = request.isPending
            pair.server.close()
            port.close()
            return Observation(
                happened: packets == 0 && isPending,
                lines: ["the client lost its cable; packets within \(readable(time)): \(packets)"])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let (asked, swept) = (try Pair(), try Pair())
            let start = Deadline.now
            // The system's shortest settings: one second of silence, one question, one second for the answer.
            try KeepAlive(idle: .seconds(1), interval: .seconds(1), probes: 1, unanswered: nil).apply(
                to: asked.server)
            try stand.table.admit(asked.server)
            try asked.client.fallSilent()
            let isFound = stand.turns(within: .seconds(8)) { stand.table.counters.announced == 1 }
            let byKeepAlive = Duration.nanoseconds(Int64(monotonicNanoseconds() - start.nanoseconds))

            try stand.table.admit(swept.server)
            try swept.client.fallSilent()
            let again = monotonicNanoseconds()
            let table = stand.table
            let sweep = try PeriodicTask("idle sweep", every: .milliseconds(50)) {
                table.tick(now: $0, idleLimit: .milliseconds(200))
            }
            let isSwept = stand.turns { stand.table.counters.announced == 2 }
            let bySweep = Duration.nanoseconds(Int64(monotonicNanoseconds() - again))
            sweep.stop()
            let ends = stand.ends.locked { $0 }
            return Observation(
                happened: !isFound || !isSwept || ends != [.reset, .cancelled] || !stand.finish(),
                lines: [
                    "the client lost its cable; keep-alive found it after \(readable(byKeepAlive)): \(ends.first?.description ?? "not")",
                    "an idle sweep with a limit of 200 ms found the next after \(readable(bySweep)): \(ends.last?.description ?? "not")",
                ])
        })
}
