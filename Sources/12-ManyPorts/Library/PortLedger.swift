import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering

/// What a set of ports knows of its connections: where each of them is, and what has gone through it.
///
/// Nothing is counted for it. Chapter 05 counts for each connection, by the worker that has the connection's lock anyway; here
/// it is added up when somebody wants to know. One lock, taken by nobody for a packet. (I12.2)
final class PortLedger: PortChoice, @unchecked Sendable {
    private let lock = Lock()
    // Guarded by the lock.
    private var ports: [CompletionPort] = []
    private var places: [ConnectionID: Place] = [:]
    private var placer: Placer
    private var totals: [PortSet.PortCounters]
    private var moves = PortSet.MoveCounters()

    private struct Place {
        var port: Int
        /// What had gone through it when it was looked at last, and how much of it since the last interval began.
        var packets = 0, bytes = 0, load = 0.0
        /// Packets a second, averaged; nil before the first interval is over.
        var rate: Double?
        /// When its move is given up, in nanoseconds on the monotonic clock; 0 while it is not being moved.
        var deadline: UInt64 = 0
        var target = 0
    }

    init(_ placement: Placement, ports count: Int) {
        placer = Placer(placement, ports: count)
        totals = Array(repeating: PortSet.PortCounters(), count: count)
    }

    /// Before anything listens.
    func begin(_ ports: [CompletionPort]) { lock.locked { self.ports = ports } }

    // MARK: In and out

    /// Called by the worker that has accepted the client: nobody of the port that is chosen has to do anything for it. (I12.7)
    func port(for connection: StreamConnection) -> CompletionPort {
        lock.locked {
            let port = placer.place()
            places[connection.id] = Place(port: port)
            return ports[port]
        }
    }

    func ended(_ connection: StreamConnection) {
        let traffic = connection.traffic
        lock.locked {
            guard places[connection.id] != nil else { return }
            add(traffic, of: connection.id)
            placer.left(places.removeValue(forKey: connection.id)!.port)
        }
    }

    /// Where a connection is; nil when it is over.
    func place(of id: ConnectionID) -> Int? { lock.locked { places[id]?.port } }

    // MARK: Traffic

    /// Under the lock: what has gone through a connection since the last look is its present port's.
    private func add(_ traffic: Traffic, of id: ConnectionID) {
        guard var place = places[id] else { return }
        // What was asked a moment ago may come behind what a move has written down meanwhile.
        let packets = max(0, traffic.chunksReceived + traffic.sends - place.packets)
        let bytes = max(0, traffic.bytesReceived + traffic.bytesSent - place.bytes)
        place.packets += packets
        place.bytes += bytes
        place.load += Double(packets) + Double(bytes) / PortSet.bytesLikeAPacket
        totals[place.port].packets += packets
        totals[place.port].bytes += bytes
        places[id] = place
    }

    /// Looks at all connections, without an interval being over.
    func look(_ connections: [StreamConnection]) -> [PortSet.PortCounters] {
        let seen = connections.map { ($0.id, $0.traffic) }
        return lock.locked {
            for (id, traffic) in seen { add(traffic, of: id) }
            for port in totals.indices { totals[port].connections = placer.connections[port] }
            return totals
        }
    }

    /// An interval is over: what went through each connection, averaged with what did so before. Half of an average is the
    /// last interval, a quarter the one before that: a burst is soon forgotten, and does not move anybody by itself.
    func measure(_ connections: [StreamConnection], seconds: Double) -> [Balancer.Load] {
        _ = look(connections)
        return lock.locked {
            var loads: [Balancer.Load] = []
            for port in totals.indices { totals[port].load = 0 }
            for (id, var place) in places {
                let rate = place.load / seconds
                let average = place.rate.map { ($0 + rate) / 2 } ?? rate
                (place.rate, place.load) = (average, 0)
                places[id] = place
                totals[place.port].load += average
                loads.append(Balancer.Load(id: id, port: place.port, rate: average))
            }
            placer.measured(totals.map(\.load))
            // The same connections give the same moves.
            return loads.sorted { $0.id < $1.id }
        }
    }

    // MARK: Moves

    /// A move begins. False when the connection is there already.
    func begins(_ id: ConnectionID, to port: Int, until deadline: UInt64) throws(SystemError) -> Bool {
        try lock.locked { () throws(SystemError) in
            guard let place = places[id] else { throw SystemError.closed("move \(id)") }
            guard place.deadline == 0 else {
                moves.refused += 1
                throw SystemError(EBUSY, attempted: "move \(id) while it is being moved")
            }
            if place.port == port { return false }
            places[id]!.deadline = deadline
            places[id]!.target = port
            moves.begun += 1
            return true
        }
    }

    /// It has not even begun.
    func refused(_ id: ConnectionID) {
        lock.locked {
            places[id]?.deadline = 0
            moves.begun -= 1
            moves.refused += 1
        }
    }

    /// It has not come to its end.
    func givenUp(_ id: ConnectionID) {
        lock.locked {
            places[id]?.deadline = 0
            moves.givenUp += 1
        }
    }

    /// The connection has changed its port. What has gone through it till now was the former one's. Returns that.
    func moved(_ id: ConnectionID, _ traffic: Traffic) -> Int {
        lock.locked {
            guard let former = places[id] else { return 0 }
            add(traffic, of: id)
            places[id]!.deadline = 0
            places[id]!.port = former.target
            placer.moved(from: former.port, to: former.target)
            moves.made += 1
            return former.port
        }
    }

    var moveCounters: PortSet.MoveCounters { lock.locked { moves } }

    /// Those whose move takes too long.
    func overdue(_ now: UInt64) -> [ConnectionID] {
        lock.locked { places.filter { $0.value.deadline > 0 && $0.value.deadline <= now }.map(\.key) }
    }
}
