import Contexts
import Glibc
import Kernel
import Reordering
import Stage
import Testing

@testable import ManyPorts
@testable import ManyPortsPitfalls

/// A load that was made up: connections with rates, which a balancer may move.
private struct Scene {
    var loads: [Balancer.Load]
    let ports: Int
    /// What each connection says in the mean.
    var means: [Double]
    var moves = 0
    /// For each connection the ports that it has left.
    var left: [ConnectionID: [Int]] = [:]
    var backAndForth = 0

    init(_ means: [Double], ports: Int, at place: (Int) -> Int) {
        self.means = means
        self.ports = ports
        loads = means.indices.map { .init(id: .next(), port: place($0), rate: means[$0]) }
    }

    var sums: [Double] {
        loads.reduce(into: Array(repeating: 0, count: ports)) { $0[$1.port] += $1.rate }
    }

    /// How far the worst port is from the mean, in parts of it.
    var worst: Double {
        let mean = sums.reduce(0, +) / Double(ports)
        return sums.map { abs($0 - mean) / mean }.max() ?? 0
    }

    /// One interval: rates vary, as averages do, and what the balancer says is done.
    mutating func interval(
        _ balancer: inout Balancer, noise: Double, _ generator: inout SeededGenerator
    ) -> [Balancer.Move] {
        for index in loads.indices {
            let rate = means[index] * Double.random(in: 1 - noise...1 + noise, using: &generator)
            loads[index].rate = (loads[index].rate + rate) / 2
        }
        let moves = balancer.moves(for: loads, ports: ports)
        for move in moves {
            let index = loads.firstIndex { $0.id == move.id }!
            precondition(loads[index].port == move.from && move.from != move.to)
            loads[index].port = move.to
            if left[move.id, default: []].contains(move.to) { backAndForth += 1 }
            left[move.id, default: []].append(move.from)
        }
        self.moves += moves.count
        return moves
    }
}

@Suite("Chapter 12: balancing", .serialized)
struct Chapter12ManyPortsBalancing {
    // I12.4
    @Test(
        "even: within 20 % after one interval, and then for 100 no move to and fro", arguments: 1...20)
    func even(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let ports = Int.random(in: 2...8, using: &generator)
        // Enough busy ones that it can be done, idle ones beside them, all busy ones on one port.
        let busy = Int.random(in: 8...20, using: &generator) * ports
        let idle = Int.random(in: 0...200, using: &generator)
        let means =
            (0..<busy).map { _ in Double.random(in: 200...2_000, using: &generator) }
            + (0..<idle).map { _ in Double.random(in: 0...2, using: &generator) }
        var scene = Scene(means, ports: ports) { $0 < busy ? 0 : $0 % ports }
        var balancer = Balancer()
        let first = scene.interval(&balancer, noise: 0.1, &generator)
        #expect(first.count <= balancer.options.movesPerInterval)
        if first.count < balancer.options.movesPerInterval { #expect(scene.worst <= 0.2) }
        for _ in 0..<2 { _ = scene.interval(&balancer, noise: 0.1, &generator) }
        #expect(scene.worst <= 0.2)
        let settled = scene.moves
        for _ in 0..<100 { _ = scene.interval(&balancer, noise: 0.1, &generator) }
        #expect(scene.worst <= 0.2)
        #expect(
            scene.moves == settled && scene.backAndForth == 0, "\(scene.moves - settled) moves for nothing")
    }

    // I12.4
    @Test(
        "even: one that says more than all others together is not carried to and fro", arguments: [2, 3, 5])
    func giant(ports: Int) {
        var generator = SeededGenerator(seed: 3)
        var scene = Scene([50_000] + Array(repeating: 100, count: 60), ports: ports) { _ in 0 }
        var balancer = Balancer()
        for _ in 0..<100 { _ = scene.interval(&balancer, noise: 0.1, &generator) }
        // It has a port of its own, and the others are even.
        let own = scene.loads[0].port
        #expect(scene.loads.count { $0.port == own } == 1)
        #expect(scene.backAndForth == 0 && scene.left[scene.loads[0].id, default: []].count <= 1)
        let others = scene.sums.indices.filter { $0 != own }.map { scene.sums[$0] }
        let mean = others.reduce(0, +) / Double(others.count)
        #expect(others.allSatisfy { abs($0 - mean) <= mean * 0.2 })
    }

    // I12.4
    @Test("even: a load that changes is followed, with few moves", arguments: 1...10)
    func changes(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var scene = Scene(Array(repeating: 500, count: 80), ports: 4) { $0 % 4 }
        var balancer = Balancer()
        for interval in 0..<100 {
            if interval % 20 == 10 {
                // Those on one port say half as much, and those of another twice as much.
                for index in scene.loads.indices {
                    scene.means[index] = [250, 1_000, 500, 500][scene.loads[index].port]
                }
            }
            _ = scene.interval(&balancer, noise: 0.1, &generator)
            // An average needs some intervals to forget.
            if interval % 20 == 9 { #expect(scene.worst <= 0.2, "interval \(interval)") }
        }
        #expect(scene.moves <= 5 * 40, "\(scene.moves)")
    }

    // I12.4
    @Test(
        "segregated: those that say much are apart from those that say little, and stay so", arguments: 1...10
    )
    func segregated(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let ports = Int.random(in: 2...6, using: &generator)
        let means =
            (0..<8).map { _ in Double.random(in: 500...1_500, using: &generator) }
            + (0..<200).map { _ in Double.random(in: 0...5, using: &generator) }
        var scene = Scene(means, ports: ports) { $0 % ports }
        var balancer = Balancer(.init(.segregated(heavyShare: 0.5)))
        for _ in 0..<10 {
            #expect(
                scene.interval(&balancer, noise: 0.2, &generator).count <= balancer.options.movesPerInterval)
        }
        let border = max(1, Int((Double(ports) / 2).rounded()))
        #expect(scene.loads.prefix(8).allSatisfy { $0.port < border })
        #expect(scene.loads.dropFirst(8).allSatisfy { $0.port >= border })
        let places = scene.loads.dropFirst(8).map(\.port)
        for _ in 0..<100 { _ = scene.interval(&balancer, noise: 0.2, &generator) }
        #expect(scene.loads.prefix(8).allSatisfy { $0.port < border })
        #expect(scene.loads.dropFirst(8).map(\.port) == places)
    }

    // I12.4
    @Test("segregated: who goes up and down at the border is not carried to and fro")
    func border() {
        var options = Balancer.Options(.segregated(heavyShare: 0.5))
        options.rest = 0
        var balancer = Balancer(options)
        var loads = (0..<40).map { Balancer.Load(id: .next(), port: $0 % 2, rate: 100) }
        // Another one is always heavy, so there are always two parts.
        loads[3].rate = 1_000
        let one = loads[1].id
        var moves = 0
        for interval in 0..<40 {
            // More than twice the mean, and less, but never less than the mean itself.
            loads[1].rate = interval % 2 == 0 ? 260 : 180
            for move in balancer.moves(for: loads, ports: 2) {
                loads[loads.firstIndex { $0.id == move.id }!].port = move.to
                if move.id == one { moves += 1 }
            }
        }
        #expect(moves == 1 && loads[1].port == 0)
    }

    @Test("nothing to do: off, one port, nobody, as good as idle, all the same")
    func nothing() {
        var off = Balancer(.init(.off))
        let loads = (0..<10).map { _ in Balancer.Load(id: .next(), port: 0, rate: 1_000) }
        #expect(off.moves(for: loads, ports: 2) == [])
        var even = Balancer()
        #expect(even.moves(for: loads, ports: 1) == [] && even.moves(for: [], ports: 2) == [])
        let quiet = loads.map { Balancer.Load(id: $0.id, port: 0, rate: 3) }
        #expect(even.moves(for: quiet, ports: 2) == [])
        var apart = Balancer(.init(.segregated(heavyShare: 0.5)))
        // Nobody is heavy among equals: then both ports are used.
        #expect(apart.moves(for: loads, ports: 2).count == 5)
    }

    // I12.4
    @Test("what was moved is left alone for some intervals, and a limit holds")
    func limits() {
        var options = Balancer.Options()
        (options.movesPerInterval, options.rest) = (3, 2)
        var balancer = Balancer(options)
        let ids = (0..<40).map { _ in ConnectionID.next() }
        let first = balancer.moves(for: ids.map { .init(id: $0, port: 0, rate: 100) }, ports: 2)
        #expect(first.count == 3 && first.allSatisfy { $0.to == 1 })
        // As if all were on the other port now: who was moved stays.
        for _ in 0..<2 {
            let next = balancer.moves(for: ids.map { .init(id: $0, port: 1, rate: 100) }, ports: 2)
            #expect(next.count == 3 && next.allSatisfy { move in !first.contains { $0.id == move.id } })
        }
    }

    // I12.4: every look is at a real load, and what has been moved may be moved again at once.
    @Test(
        "even: within 20 % after one look, and for five more nothing is moved",
        arguments: DriverKind.permitted)
    func fiveLooks(driver: DriverKind) async throws {
        try await onAThread {
            var options = BrokenTurns.options(driver)
            (options.balance.plan, options.balance.rest) = (.even, 0)
            let set = try PortSet(options)
            let clients = try Clients(to: try set.hub.listen { _ in Echo() }, count: 16, of: set)
            // All of them are on port 0.
            let busy = clients.every(2)
            #expect(try busy.talk(trips: 50))
            let begun = set.rebalanceNow()
            #expect(begun > 0 && eventually { set.counters.moves.made == begun })
            for _ in 0..<5 {
                let before = set.counters
                #expect(try busy.talk(trips: 50))
                let shares = UnbalancedPorts.shares(before, set.counters)
                #expect(shares.allSatisfy { (40...60).contains($0) }, "\(shares)")
                #expect(set.rebalanceNow() == 0)
            }
            clients.close()
            #expect(set.stop())
        }
    }

    // I12.2, I12.4: one real run.
    @Test("the set measures, moves and counts by itself", arguments: DriverKind.permitted)
    func byItself(driver: DriverKind) async throws {
        try await onAThread {
            let set = try makeSet(driver) { $0.interval = .milliseconds(100) }
            let address = try set.hub.listen { _ in Echo() }
            var clients: [Socket] = []
            for number in 1...12 {
                clients.append(try Socket.connected(to: address))
                #expect(eventually { set.hub.connectionCount == number })
            }
            // Every second one is busy, and all of them are on port 0.
            let isOver = Gate()
            let busy = stride(from: 0, to: 12, by: 2).map { Streamer(clients[$0]) }
            for client in busy { client.start(pause: 1_000) { isOver.isOpen } }
            #expect(eventually { set.counters.moves.made >= 3 })
            let moved = set.counters
            #expect(eventually { set.counters.ports[1].packets > moved.ports[1].packets + 100 })
            isOver.open()
            for client in busy { #expect(client.finish()) }
            let counters = set.counters
            let all = counters.ports.reduce(0) { $0 + $1.bytes }
            #expect(all == 2 * busy.reduce(0) { $0 + $1.heard })
            #expect(set.stop())
        }
    }
}
