import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage

/// Silent clients take every accept that there may be; honest ones come in between and behind them.
func playAttack(_ options: Stage.Options, on terminal: Terminal) throws {
    let (silent, honest) = (200, 20)
    let interval = Duration.seconds(1)
    terminal.heading("\(silent) silent clients, and \(honest) honest ones among them")
    terminal.say("The pool may have \(silent) accepts. The sweep looks every \(readable(interval)).")
    terminal.say()
    let swept = try attack(silent, honest, limit: interval / 2, interval, options)
    let unswept = try attack(silent, honest, limit: nil, interval, options)
    func row(_ name: String, _ outcome: AttackOutcome) -> [String] {
        let wait = outcome.served == honest ? "\(Int(outcome.longest / .milliseconds(1)))" : "for ever"
        return [name, "\(outcome.served) of \(honest)", wait, "\(outcome.swept)"]
    }
    terminal.table(
        ["", "honest ones served", "the longest waited ms", "silent ones ended"],
        [row("with the sweep", swept), row("without it", unswept)])
    terminal.say()
    terminal.claim(
        "with the sweep every honest client is served, since silent ones are ended in time",
        holds: swept.served == honest && swept.swept > 0)
    terminal.claim(
        "without it, clients that come when the last accept is taken are locked out",
        holds: unswept.served < honest)
}

private struct AttackOutcome {
    var served = 0
    var longest = Duration.zero
    var swept = 0
}

private func attack(
    _ silent: Int, _ honest: Int, limit: Duration?, _ interval: Duration, _ options: Stage.Options
) throws -> AttackOutcome {
    var choices = serverOptions(options)
    choices.pool.maximum = silent
    choices.pool.silenceLimit = limit
    choices.pool.lookInterval = interval
    let server = try PrepostedServer(options: choices)
    var outcome = AttackOutcome()
    var attackers: [Caller] = []
    var callers: [Caller] = []
    // One honest client for every twenty attackers, and the last ten of them behind all.
    for number in 0..<silent {
        attackers.append(try Caller(to: server.address))
        if number % 20 == 19 { callers.append(try Caller(to: server.address)) }
    }
    _ = eventually(within: .milliseconds(100)) { server.accepts.pending == silent }
    let start = monotonicNanoseconds()
    callers += try Caller.several(honest - callers.count, to: server.address)
    for caller in callers { try caller.say("please") }
    // Without the sweep it would be for ever.
    var patience: Duration = limit == nil ? .seconds(2) : .seconds(10)
    for caller in callers {
        if try caller.hear(6, within: patience) == "please" {
            outcome.served += 1
            outcome.longest = .nanoseconds(monotonicNanoseconds() - start)
        } else {
            patience = .milliseconds(1)
        }
    }
    outcome.swept = server.accepts.swept
    for caller in attackers + callers { caller.socket.close() }
    server.stop()
    return outcome
}
