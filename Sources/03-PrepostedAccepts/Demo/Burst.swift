import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage

/// A burst of clients against ten accepts: a pool that stays as it is, and one that grows.
func playBurst(_ options: Stage.Options, on terminal: Terminal) throws {
    let asked = options.clients ?? 2_000
    // All of them are in the backlog before the first one speaks, and a listener's backlog has 4,096 places.
    let wanted = min(asked, 4_000)
    let clients = Resources.clientsThatFit(wanted, descriptorsEach: 2)
    terminal.heading("A burst of \(readable(clients)) clients against ten accepts")
    if wanted < asked {
        terminal.say("the backlog suffices for \(readable(wanted)) clients, not for \(readable(asked))")
    }
    if clients < wanted { terminal.say("descriptors suffice for \(clients) clients, not for \(wanted)") }
    terminal.say("All of them connect before the first one says a word.")
    terminal.say()
    let fixed = try burst(clients, most: 10, options)
    let grown = try burst(clients, most: 2_048, options)
    func row(_ name: String, _ outcome: BurstOutcome) -> [String] {
        [
            name, "\(outcome.taken)", "\(outcome.served)", "\(outcome.accepts.shortages)",
            "\(outcome.accepts.peak)", "\(outcome.accepts.pending)",
            "\(Int(outcome.elapsed / .milliseconds(1)))",
        ]
    }
    terminal.table(
        ["pool", "taken before a word", "served", "grew", "accepts at most", "afterwards", "ms in all"],
        [row("ten, whatever comes", fixed), row("ten, and it grows", grown)])
    terminal.say()
    terminal.claim(
        "every client was served by both", holds: fixed.served == clients && grown.served == clients)
    terminal.claim(
        "the pool that grows takes clients that have not said anything yet, and is back at ten afterwards",
        holds: grown.taken >= min(clients, 2_000) && grown.accepts.pending == 10
            && fixed.taken == min(clients, 10))
}

private struct BurstOutcome {
    var taken = 0
    var served = 0
    var accepts = AcceptPool.Counters()
    var elapsed = Duration.zero
}

private func burst(_ clients: Int, most: Int, _ options: Stage.Options) throws -> BurstOutcome {
    var choices = serverOptions(options)
    choices.maximumConnections = clients
    choices.pool.initial = 10
    choices.pool.maximum = most
    choices.pool.lookInterval = .milliseconds(50)
    choices.pool.silenceLimit = .seconds(10)
    let server = try PrepostedServer(options: choices)
    var outcome = BurstOutcome()
    let start = monotonicNanoseconds()
    let callers = try Caller.several(clients, to: server.address)
    outcome.taken = server.accepts.pending
    if most > 10 { _ = eventually { server.accepts.pending >= min(clients, 2_000) } }
    outcome.taken = min(clients, server.accepts.pending)
    for caller in callers { try caller.say("hello") }
    for caller in callers where try caller.hear(5) == "hello" { outcome.served += 1 }
    outcome.elapsed = .nanoseconds(monotonicNanoseconds() - start)
    for caller in callers { caller.socket.close() }
    _ = eventually { server.counters.connections == 0 && server.accepts.pending == 10 }
    outcome.accepts = server.accepts
    server.stop()
    return outcome
}
