import Kernel
import ManyPorts
import Reordering
import Stage

/// ⚠︎ Broken on purpose: in turn, and for ever.
enum BrokenTurns {
    /// As many connections for each port, whatever goes through them.
    static func options(_ driver: DriverKind) -> PortSet.Options {
        var options = PortSet.Options()
        (options.ports, options.placement, options.balance.plan) = (2, .roundRobin, .off)
        (options.interval, options.streams.port.driver) = (nil, driver)
        return options
    }
}

/// Two ports, and every second client is busy.
public enum UnbalancedPorts {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "unbalanced-ports",
        title: "connections are spread evenly, and their traffic is not",
        broken: { driver in try observe(BrokenTurns.options(driver)) },
        fixed: { driver in
            var options = BrokenTurns.options(driver)
            options.balance.plan = .even
            return try observe(options)
        })

    private static func observe(_ options: PortSet.Options) throws -> Observation {
        let set = try PortSet(options)
        let address = try set.hub.listen { _ in Echo() }
        // One after the other, so that turns are turns.
        let clients = try Clients(to: address, count: 16, of: set)
        let busy = clients.every(2)
        let before = set.counters
        let first = try busy.talk(trips: 50)
        let between = set.counters
        let begun = set.rebalanceNow()
        let isMoved = eventually { set.counters.moves.made == begun }
        let start = set.counters
        let second = try busy.talk(trips: 50)
        let after = set.counters
        let early = shares(before, between)
        let late = shares(start, after)
        clients.close()
        let isBack = set.stop()
        return Observation(
            happened: !(first && second && isMoved && isBack && late.allSatisfy { (40...60).contains($0) }),
            lines: [
                "16 clients, 8 on each port; every second one is busy",
                "packets: \(early[0]) % on port 0, \(early[1]) % on port 1",
                "moved: \(begun)",
                "packets after that: \(late[0]) % on port 0, \(late[1]) % on port 1",
            ])
    }

    /// What each port has had of the packets, in parts of a hundred.
    public static func shares(_ before: PortSet.Counters, _ after: PortSet.Counters) -> [Int] {
        let packets = zip(before.ports, after.ports).map { $1.packets - $0.packets }
        let all = max(1, packets.reduce(0, +))
        return packets.map { ($0 * 100 + all / 2) / all }
    }
}
