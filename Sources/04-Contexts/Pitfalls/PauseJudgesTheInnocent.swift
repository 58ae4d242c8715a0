import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a round judges by the clock, however late it comes.
struct BrokenRounds {
    let table: ConnectionTable
    let limit: Duration

    func round() { table.tick(now: monotonicNanoseconds(), idleLimit: limit) }
}

/// The program is stopped for longer than a limit, and then ends the clients who have kept it.
public enum PauseJudgesTheInnocent {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "pause-judges-the-innocent",
        title: "the program stands still for a while, and then ends clients whose bytes have come meanwhile",
        broken: { driver in
            try scenario(driver) { stand, _ in
                pause()
                BrokenRounds(table: stand.table, limit: limit).round()
            }
        },
        fixed: { driver in
            try scenario(driver) { stand, pairs in
                let table = stand.table
                // The clock's thread waits at gates, so this thread says what happens between two of its rounds.
                let (start, call) = (monotonicNanoseconds(), Counter())
                let (goesOn, hasLooked, nextRound, hasJudged) = (Gate(), Gate(), Gate(), Gate())
                let clock = try PeriodicTask("idle sweep", every: interval) {
                    switch call.add() {
                    case 1: return start
                    case 2:
                        goesOn.pass()
                        return start + nanoseconds(limit + interval)
                    case 3:
                        hasLooked.open()
                        return start + nanoseconds(limit + interval)
                    default:
                        nextRound.pass()
                        return start + nanoseconds(limit + interval * 2)
                    }
                } tick: { now in
                    table.tick(now: now, idleLimit: limit)
                    hasJudged.open()
                }
                defer { clock.stop() }
                pause()
                goesOn.open()
                hasLooked.pass()
                // Meanwhile the workers handle what has come.
                _ = stand.turns { pairs.allSatisfy { $0.client.unread > 0 } || table.registry.count == 0 }
                nextRound.open()
                if !hasJudged.pass() {
                    throw SystemError(ETIMEDOUT, attempted: "wait for a round that judges")
                }
            }
        })

    /// How long a client may be silent, and how often the sweep looks.
    private static let limit = Duration.milliseconds(120)
    private static let interval = limit / 4
    private static let clients = 8

    /// The program is stopped: no worker handles anything, and the clock goes on.
    private static func pause() { usleep(UInt32(nanoseconds(limit) / 1_000)) }

    private static func nanoseconds(_ duration: Duration) -> UInt64 { UInt64(duration / .nanoseconds(1)) }

    /// Clients speak, the program is stopped, they speak again, and it goes on with `round`.
    private static func scenario(
        _ driver: DriverKind, round: (Stand, [Pair]) throws -> Void
    ) throws -> Observation {
        let stand = try Stand(driver)
        let pairs = try Pair.several(clients)
        for pair in pairs { try stand.table.admit(pair.server) }
        for pair in pairs { try pair.client.say("a") }
        try round(stand, pairs)
        let ended = clients - stand.table.registry.count
        _ = stand.turns { stand.table.registry.count == 0 || pairs.allSatisfy { $0.client.unread > 0 } }
        let answered = pairs.count { $0.client.unread == 1 }
        return Observation(
            happened: ended > 0 || answered < clients || !stand.finish(),
            lines: [
                "\(clients) clients spoke while the program was stopped; the limit is \(readable(limit))",
                "it goes on: \(ended) were ended for their silence, \(answered) were answered",
            ])
    }
}
