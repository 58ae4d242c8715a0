import Contexts

/// Says which connections should change their port, from what went through each of them lately.
///
/// A value: it has no clock, no lock and no connection, so a made-up hour is tried in a millisecond. (I12.4)
public struct Balancer: Sendable {
    /// What is to be reached.
    public enum Plan: Sendable, Equatable {
        /// Nothing: connections stay where they were placed.
        case off
        /// As much on each port.
        case even
        /// Those that say much on one part of the ports, those that say little on the other: `heavyShare` is the part of the
        /// ports for the first, between 0 and 1. Each part gets one port at least, and is kept even in itself.
        case segregated(heavyShare: Double)
    }

    /// The limits and choices.
    public struct Options: Sendable {
        /// What is to be reached.
        public var plan = Plan.even
        /// How far a port's load may be from the mean, in parts of it, before anything is moved. Once something is, it is
        /// gone on with to half of that: so a load at the border does not make a move at each interval.
        public var tolerance = 0.2
        /// The most moves in an interval.
        public var movesPerInterval = 100
        /// Intervals that a connection which has been moved is left alone.
        public var rest = 3
        /// Below this load, in packets a second, a port is as good as idle, and nothing is moved for its sake.
        public var leastLoad = 50.0

        /// The defaults.
        public init(_ plan: Plan = .even) { self.plan = plan }
    }

    /// A connection, as a balancer sees it.
    public struct Load: Sendable {
        /// Its name.
        public let id: ConnectionID
        /// Where it is.
        public var port: Int
        /// What goes through it in a second; see `PortSet.Counters`.
        public var rate: Double

        /// A connection with so much traffic.
        public init(id: ConnectionID, port: Int, rate: Double) {
            (self.id, self.port, self.rate) = (id, port, rate)
        }
    }

    /// What should be done with one connection.
    public struct Move: Sendable, Equatable {
        /// Its name.
        public let id: ConnectionID
        /// The ports.
        public let from: Int, to: Int
    }

    /// The limits and choices.
    public let options: Options
    private var interval = 0
    /// In which interval a connection was moved.
    private var moved: [ConnectionID: Int] = [:]
    private var heavy: Set<ConnectionID> = []

    /// A balancer that has not seen anything yet.
    public init(_ options: Options = Options()) { self.options = options }

    /// The moves after one more interval.
    public mutating func moves(for loads: [Load], ports: Int) -> [Move] {
        interval += 1
        let (now, rest) = (interval, options.rest)
        moved = moved.filter { now - $0.value <= rest }
        guard ports > 1, !loads.isEmpty else { return [] }
        var scene = Scene(loads, ports, options, resting: moved)
        switch options.plan {
        case .off: break
        case .even: scene.even(0..<ports)
        case .segregated(let share):
            classify(loads)
            if heavy.isEmpty || heavy.count == loads.count {
                scene.even(0..<ports)
            } else {
                let border = min(ports - 1, max(1, Int((Double(ports) * share).rounded())))
                scene.segregate(heavy, border)
                scene.even(0..<border)
                scene.even(border..<ports)
            }
        }
        for move in scene.moves { moved[move.id] = interval }
        return scene.moves
    }

    /// Who says twice as much as the mean is heavy, until it says less than the mean.
    private mutating func classify(_ loads: [Load]) {
        let mean = loads.reduce(0) { $0 + $1.rate } / Double(loads.count)
        let before = heavy
        heavy = Set(
            loads.lazy.filter { $0.rate > (before.contains($0.id) ? mean : 2 * mean) }.map(\.id))
    }
}

/// The ports while it is worked out what to move.
private struct Scene {
    private(set) var moves: [Balancer.Move] = []
    private var members: [[Balancer.Load]]
    private var sums: [Double]
    private let options: Balancer.Options
    private let resting: [ConnectionID: Int]

    init(
        _ loads: [Balancer.Load], _ ports: Int, _ options: Balancer.Options, resting: [ConnectionID: Int]
    ) {
        members = Array(repeating: [], count: ports)
        sums = Array(repeating: 0, count: ports)
        for load in loads {
            members[load.port].append(load)
            sums[load.port] += load.rate
        }
        self.options = options
        self.resting = resting
    }

    private var isFull: Bool { moves.count >= options.movesPerInterval }

    /// Takes from the port with the most and gives to the one with the least, until they are even enough.
    mutating func even(_ ports: Range<Int>) {
        var ports = Array(ports)
        var hasMoved = false
        while !isFull, ports.count > 1 {
            let mean = ports.reduce(0) { $0 + sums[$1] } / Double(ports.count)
            let tolerance = hasMoved ? options.tolerance / 2 : options.tolerance
            let isOff = ports.contains { abs(sums[$0] - mean) > mean * tolerance }
            guard mean >= options.leastLoad, isOff else { return }
            let from = ports.max { sums[$0] < sums[$1] }!
            let to = ports.min { sums[$0] < sums[$1] }!
            if let index = best(on: from, gap: sums[from] - sums[to]) {
                move(from, index, to)
                hasMoved = true
            } else {
                // It has nothing that could be given away: the others are made even among themselves.
                ports.removeAll { $0 == from }
                hasMoved = false
            }
        }
    }

    /// The connection whose move closes the gap best: the nearest to half of it. One that says as much as the whole gap would
    /// only take the load along to the other port, and be moved back at the next interval.
    private func best(on port: Int, gap: Double) -> Int? {
        members[port].indices.filter {
            let load = members[port][$0]
            return load.rate >= 1 && load.rate < gap * 0.9 && resting[load.id] == nil
        }.min { abs(members[port][$0].rate - gap / 2) < abs(members[port][$1].rate - gap / 2) }
    }

    /// Brings each connection to its part of the ports: those that say much first.
    mutating func segregate(_ heavy: Set<ConnectionID>, _ border: Int) {
        let strays = members.indices.flatMap { port in
            members[port].filter { heavy.contains($0.id) != (port < border) && resting[$0.id] == nil }
        }
        for load in strays.sorted(by: { ($0.rate, $1.id) > ($1.rate, $0.id) }) where !isFull {
            let index = members[load.port].firstIndex { $0.id == load.id }!
            let home = load.port < border ? border..<members.count : 0..<border
            let to = home.min { (sums[$0], members[$0].count) < (sums[$1], members[$1].count) }!
            move(load.port, index, to)
        }
    }

    private mutating func move(_ from: Int, _ index: Int, _ to: Int) {
        var load = members[from].remove(at: index)
        sums[from] -= load.rate
        sums[to] += load.rate
        moves.append(Balancer.Move(id: load.id, from: load.port, to: to))
        load.port = to
        members[to].append(load)
    }
}
