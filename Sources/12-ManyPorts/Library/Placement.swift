/// Which port gets a new connection.
public enum Placement: String, CaseIterable, Sendable {
    /// One after the other.
    case roundRobin = "round-robin"
    /// The one with the fewest connections.
    case fewest
    /// The one with the least traffic lately.
    case leastTraffic = "least-traffic"
}

/// Places new connections. A value: it belongs to something with a lock. (I12.3)
struct Placer {
    let placement: Placement
    /// Connections on each port.
    private(set) var connections: [Int]
    /// What went through each port lately.
    private var loads: [Double]
    /// Connections that each port has got since that was measured.
    private var newcomers: [Int]
    private var next = 0

    init(_ placement: Placement, ports: Int) {
        self.placement = placement
        connections = Array(repeating: 0, count: ports)
        loads = Array(repeating: 0, count: ports)
        newcomers = connections
    }

    /// The port for one more connection, which is counted there.
    mutating func place() -> Int {
        let port =
            switch placement {
            case .roundRobin: next % connections.count
            case .fewest: least { (0, connections[$0]) }
            case .leastTraffic: least { (expected($0), connections[$0]) }
            }
        next += 1
        connections[port] += 1
        newcomers[port] += 1
        return port
    }

    /// What is to be expected of a port. A newcomer has said nothing yet. If it counted as nothing, everybody who comes before
    /// the next look would be sent to the same port: so it counts as the mean of those who are there.
    private func expected(_ port: Int) -> Double {
        let known = zip(connections, newcomers).reduce(0) { $0 + max(0, $1.0 - $1.1) }
        let mean = known == 0 ? 0 : loads.reduce(0, +) / Double(known)
        return loads[port] + mean * Double(newcomers[port])
    }

    private func least(_ weight: (Int) -> (Double, Int)) -> Int {
        connections.indices.min { weight($0) < weight($1) }!
    }

    mutating func left(_ port: Int) {
        connections[port] -= 1
        newcomers[port] = min(newcomers[port], connections[port])
    }

    mutating func moved(from: Int, to: Int) {
        left(from)
        connections[to] += 1
    }

    /// It has been measured what goes through each port.
    mutating func measured(_ loads: [Double]) {
        self.loads = loads
        newcomers = Array(repeating: 0, count: loads.count)
    }
}
