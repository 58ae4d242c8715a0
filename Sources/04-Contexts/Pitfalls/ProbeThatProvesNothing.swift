import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a client is alive as long as a send of nothing succeeds.
struct BrokenProbe {
    func isAlive(_ socket: Socket) -> Bool {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        return (try? socket.sendNow(nothing)) != nil
    }
}

/// A send of zero bytes is taken as proof of life.
public enum ProbeThatProvesNothing {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "probe-that-proves-nothing",
        title: "a send of zero bytes succeeds, and is taken as proof that the client lives",
        broken: { _ in
            let pair = try Pair()
            try pair.client.fallSilent()
            let answers = (1...5).map { _ in BrokenProbe().isAlive(pair.server) }
            let isGone = try pair.client.hear(1, within: .milliseconds(20)).isEmpty
            return Observation(
                happened: answers.allSatisfy { $0 } && isGone,
                lines: [
                    "the client lost its cable; five sends of nothing said: "
                        + (answers.allSatisfy { $0 } ? "alive, each time" : "\(answers)")
                ])
        },
        fixed: { driver in
            // One byte that has to be answered, and a limit for the answer.
            let stand = try Stand(driver)
            let (dead, living) = (try Pair(), try Pair())
            let ping: [UInt8] = [LeavingClients.push]
            let connections = [try stand.table.admit(dead.server), try stand.table.admit(living.server)]
            try dead.client.fallSilent()
            let start = monotonicNanoseconds()
            for connection in connections { try connection.push(ping) }
            let clock = try stand.lookForPeers(unanswered: .milliseconds(300))
            let isFound = stand.turns { stand.table.counters.announced == 1 }
            clock.stop()
            let time = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
            let ends = stand.ends.locked { $0 }
            let reasons = connections.map(\.closeReason)
            return Observation(
                happened: !isFound || reasons != [.reset, nil] || !stand.finish(),
                lines: [
                    "the same client was sent one byte, which may go 300 ms without an answer: "
                        + "after \(readable(time)) \(ends.first?.description ?? "nothing")",
                    "one that lives was sent the same, and is \(reasons[1] == nil ? "still there" : "gone")",
                ])
        })
}
