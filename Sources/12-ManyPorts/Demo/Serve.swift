import Kernel
import ManyPorts
import Reordering
import Stage
import Timeline

extension Stage.Options {
    /// What `--ports`, `--workers`, `--placement` and `--balance` say.
    func portOptions(plan standard: Balancer.Plan, ports count: Int) -> PortSet.Options {
        var choices = PortSet.Options()
        choices.ports = number(portCount) ?? count
        choices.workersEach = workers ?? 1
        choices.placement = value(placement).flatMap(Placement.init(rawValue:)) ?? .roundRobin
        choices.balance.plan = plan(standard)
        choices.streams.port.driver = driver
        return choices
    }

    private func plan(_ standard: Balancer.Plan) -> Balancer.Plan {
        switch value(balance) {
        case "even": .even
        case "segregated": .segregated(heavyShare: 0.5)
        case "off": .off
        default: standard
        }
    }
}

/// `--serve`: keeps an echo server on several ports up until Ctrl-C or SIGTERM, says which connection moves, and at the end
/// what each port has done.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    if options.has(.svg) || options.has(.trace) { Recorder.start() }
    var choices = options.portOptions(plan: .even, ports: Kernel.Thread.processors)
    choices.moved = { connection, from, to in
        terminal.say("\(connection.id) moves from port \(from) to port \(to)")
    }
    let set = try PortSet(choices)
    let address = try set.hub.listen(on: options.listenAddress) { _ in Echo() }
    terminal.say("listening on \(address)")
    _ = interrupt.wait()
    let isClean = set.stop()
    if Recorder.isRecording {
        try options.save(
            Recorder.stop(), title: "The echo server of chapter 12",
            description: "What the workers of each port did while the server was up.")
    }
    let counters = set.counters
    terminal.table(
        ["port", "packets", "bytes"],
        counters.ports.enumerated().map { ["\($0)", readable($1.packets), readable($1.bytes)] })
    let moves = counters.moves
    terminal.say("moves: \(moves.made) made, \(moves.givenUp) given up, \(moves.refused) refused")
    terminal.claim("every connection is over, and every chunk is back", holds: isClean)
}
