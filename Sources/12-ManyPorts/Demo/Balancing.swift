import Contexts
import Kernel
import ManyPorts
import ManyPortsPitfalls
import Reordering
import Stage

/// 8 busy clients and 200 idle ones, of whom all the busy ones are on one port: as placed, and as moved.
func showBalancing(_ options: Stage.Options, on terminal: Terminal) throws {
    var figure = Figure()
    let plans: [(name: String, plan: Balancer.Plan)] = [
        ("even", .even), ("segregated", .segregated(heavyShare: 0.5)),
    ]
    for (name, plan) in plans where options.value(balance) == nil || options.value(balance) == name {
        try showBalancing(options, name, plan, &figure, on: terminal)
    }
    if options.value(balance) == "off" { try showBalancing(options, "off", .off, &figure, on: terminal) }
    if let path = options.value(.svg), options.value(picture) != "move" { try writeFile(path, figure.svg()) }
}

private let (busyClients, idleClients) = (8, 200)

private func showBalancing(
    _ options: Stage.Options, _ name: String, _ plan: Balancer.Plan, _ figure: inout Figure,
    on terminal: Terminal
) throws {
    var choices = options.portOptions(plan: plan, ports: 2)
    choices.balance.plan = plan
    // It is looked when the story wants it. Nothing is measured before, so all placements are by number.
    choices.interval = nil
    let ports = choices.ports
    terminal.heading("8 busy clients and 200 idle ones on \(counted(ports, "port")): \(name)")
    let made = Guarded<[ConnectionID: Bool]>([:])
    let set = try PortSet(choices)
    let address = try set.hub.listen { connection in
        // They come one after the other: every so many-th is a busy one, until there are eight.
        made.locked { $0[connection.id] = $0.count % ports == 0 && $0.count / ports < busyClients }
        return Echo()
    }
    let clients = try Clients(to: address, count: busyClients + idleClients, of: set)
    let busy = clients.every(ports).prefix(busyClients)
    func places() -> [Figure.Port] {
        var result = Array(repeating: Figure.Port(), count: ports)
        for connection in set.hub.connections {
            guard let port = set.place(of: connection) else { continue }
            if made.locked({ $0[connection.id] ?? false }) {
                result[port].busy += 1
            } else {
                result[port].idle += 1
            }
        }
        return result
    }
    func talk(_ title: String) throws -> [Figure.Port] {
        var seen = places()
        let before = set.counters
        guard try busy.talk(trips: 100) else { throw SystemError.invalid("hear what was said") }
        let after = set.counters
        for (port, share) in UnbalancedPorts.shares(before, after).enumerated() {
            seen[port].share = share
            terminal.bar(
                "\(title), port \(port)", Double(share), of: 100, width: 26,
                figure: "\(share) % of the packets; \(seen[port].busy) busy, \(seen[port].idle) idle")
        }
        figure.panels.append((title, seen))
        return seen
    }
    let placed = try talk("as placed")
    let begun = set.rebalanceNow()
    let isMoved = eventually { set.counters.moves.made == begun }
    // One interval has room for so many moves; the rest is for the next.
    while plan == .segregated(heavyShare: 0.5), set.rebalanceNow() > 0 {
        let begun = set.counters.moves.begun
        _ = eventually { set.counters.moves.made == begun }
    }
    terminal.say("moved: \(counted(set.counters.moves.made, "connection"))")
    let moved = try talk(name == "off" ? "as before" : name)
    clients.close()
    let isClean = set.stop()
    guard ports > 1 else { return }
    terminal.claim("placed in turn, all busy clients are on port 0", holds: placed[0].share == 100 && isMoved)
    let mean = 100.0 / Double(ports)
    switch plan {
    case .off: terminal.claim("nobody is moved", holds: moved[0].share == 100 && isClean)
    case .even:
        let isEven = busyClients % ports != 0 || moved.allSatisfy { abs(Double($0.share) - mean) <= mean / 5 }
        terminal.claim("after one look the ports are even to 20 %", holds: isEven && isClean)
    case .segregated:
        let border = max(1, Int((Double(ports) / 2).rounded()))
        terminal.claim(
            "busy and idle clients are on different ports",
            holds: moved.prefix(border).allSatisfy { $0.idle == 0 } && isClean
                && moved.dropFirst(border).allSatisfy { $0.busy == 0 })
    }
}
