import CompletionPorts
import Contexts
import Kernel
import Reordering

/// Several ports with workers of their own, and the connections spread over them.
///
/// The connections are chapter 05's, and so is the hub that makes them: listen and connect with it. Each connection has one
/// port at a time, and all its packets go there. With one worker for each port nobody else ever takes a packet of that
/// connection, so nothing of it is ever out of order, and nobody waits for its lock. (I12.1)
///
/// Whoever makes a set stops it. Every method may be called from any thread.
public final class PortSet: Sendable {
    /// What makes the connections. Its own port is the set's first: listeners belong to that one.
    public let hub: StreamHub
    /// The ports. A connection's is `ports[placeOf(connection)]`.
    public let ports: [CompletionPort]
    let options: Options
    let ledger: PortLedger
    private let groups: [WorkerGroup]
    private let balance: Guarded<Balance>

    /// When the last interval began, and what the balancer knows.
    private struct Balance: Sendable {
        var balancer: Balancer
        var since: UInt64
    }

    /// Makes the ports and starts their workers.
    ///
    /// - Throws: EINVAL for impossible options, EMFILE, EAGAIN.
    public init(_ options: Options = Options()) throws(SystemError) {
        guard (1...PortSet.maximumPorts).contains(options.ports), options.workersEach > 0,
            (0.01...1).contains(options.balance.tolerance), options.interval.map({ $0 > .zero }) ?? true
        else { throw SystemError.invalid("make \(options.ports) ports with \(options.workersEach) workers") }
        self.options = options
        ledger = PortLedger(options.placement, ports: options.ports)
        var streams = options.streams
        (streams.workers, streams.concurrency) = (options.workersEach, options.workersEach)
        (streams.ports, streams.workerName) = (ledger, "port 0 worker")
        let hub = try StreamHub(streams)
        var (ports, groups) = ([hub.port], [WorkerGroup]())
        do throws(SystemError) {
            for number in 1..<options.ports {
                let port = try CompletionPort(concurrency: options.workersEach, options: streams.port)
                let group = try WorkerGroup(
                    options.workersEach, on: port, batch: streams.batch, named: "port \(number) worker",
                    handler: PacketOwner.handle)
                ports.append(port)
                groups.append(group)
            }
        } catch {
            PortSet.end(hub, groups)
            throw error
        }
        (self.hub, self.ports, self.groups) = (hub, ports, groups)
        balance = Guarded(Balance(balancer: Balancer(options.balance), since: monotonicNanoseconds()))
        ledger.begin(ports)
        do throws(SystemError) {
            try hub.everyRound { [self] now in round(now) }
        } catch {
            PortSet.end(hub, groups)
            throw error
        }
    }

    /// The most ports of a set: each has a descriptor or two, and a thread.
    public static let maximumPorts = 256

    @discardableResult
    private static func end(_ hub: StreamHub, _ groups: [WorkerGroup], grace: Duration = .zero) -> Bool {
        // The workers of all ports are needed until the last connection is over.
        let isClean = hub.stop(within: grace)
        for group in groups { group.stop() }
        return isClean
    }

    /// Stops to listen, ends every connection on whichever port, and then the workers; see `StreamHub.stop`.
    @discardableResult
    public func stop(within grace: Duration = .zero) -> Bool { PortSet.end(hub, groups, grace: grace) }

    /// Which of the ports a connection has; nil when it is over.
    public func place(of connection: StreamConnection) -> Int? { ledger.place(of: connection.id) }

    // MARK: The interval

    private func round(_ now: UInt64) {
        for id in ledger.overdue(now) { hub.find(id)?.goOn() }
        guard let interval = options.interval else { return }
        let isOver = balance.locked { now >= $0.since + UInt64(interval / .nanoseconds(1)) }
        if isOver { rebalanceNow() }
    }

    /// Measures what has gone through each connection since the last time, and begins the moves that the balancer wants. It is
    /// called by itself after each interval; without an interval, when you like.
    ///
    /// - Returns: How many moves have begun. `moved` tells of those that are made.
    @discardableResult
    public func rebalanceNow() -> Int {
        let moves = balance.locked { balance in
            let now = monotonicNanoseconds()
            let seconds = Double(max(1_000_000, now - balance.since)) / 1e9
            balance.since = now
            let loads = ledger.measure(hub.connections, seconds: seconds)
            return balance.balancer.moves(for: loads, ports: ports.count)
        }
        var begun = 0
        for move in moves {
            // It may have ended since, or have a file under way: then it stays, and that is counted.
            guard let connection = hub.find(move.id) else { continue }
            if (try? reassign(connection, to: move.to)) != nil { begun += 1 }
        }
        return begun
    }

    /// What has happened so far.
    public var counters: Counters {
        Counters(ports: ledger.look(hub.connections), moves: ledger.moveCounters)
    }
}
