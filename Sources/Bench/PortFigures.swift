import CKernel
import CompletionPorts
import Glibc
import Kernel
import ManyPorts
import PrepostedAccepts
import Reordering
import Stage

/// Chapter 12: one port beside several with as many workers, and one listener beside one for each port.
///
/// The server's threads run where there is room; the clients, in a process of their own, on the second processor.
enum PortFigures {
    private static let connections = 64
    private static let shapes = [(1, 1), (1, 2), (2, 1), (1, 4), (4, 1)]

    static func measure(seconds: Double, into figures: inout Figures) throws {
        for (ports, workers) in shapes {
            for computes in [false, true] {
                try measureEcho(ports, workers, computes, seconds, into: &figures)
            }
        }
        for isShared in [false, true] { try measureAccepts(isShared, seconds, into: &figures) }
    }

    private static func name(_ ports: Int, _ workers: Int, _ computes: Bool) -> String {
        "\(counted(ports, "port")), \(counted(workers, "worker")) each\(computes ? ", 50 µs" : "")"
    }

    private static func makeSet(_ ports: Int, _ workers: Int) throws(SystemError) -> PortSet {
        var options = PortSet.Options()
        (options.ports, options.workersEach, options.interval) = (ports, workers, nil)
        return try PortSet(options)
    }

    private static func measureEcho(
        _ ports: Int, _ workers: Int, _ computes: Bool, _ seconds: Double, into figures: inout Figures
    ) throws {
        ck_unpin_thread(0)
        let set = try makeSet(ports, workers)
        let address = try set.hub.listen { _ in Computing50(computes) }
        ck_pin_thread(0, 1)
        let (before, waitsBefore) = (Resources.processTime, sleeps)
        let load = ClientLoad(to: address, connections: connections, duration: .seconds(seconds))
        let report = try load.runInChild()
        let (used, waits) = (Resources.processTime - before, sleeps - waitsBefore)
        set.stop()
        let trips = Double(max(1, report.roundTrips))
        let name = name(ports, workers, computes)
        figures.add(name, "round trips/s", report.perSecond)
        figures.add("\(name): processor", "µs/round trip", used / .microseconds(1) / trips)
        figures.add("\(name): sleeps", "in 1,000 round trips", Double(waits) * 1_000 / trips)
    }

    /// How often a thread of this process has gone to sleep.
    private static var sleeps: Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_nvcsw
    }

    // MARK: Accepts

    private static func measureAccepts(_ isShared: Bool, _ seconds: Double, into figures: inout Figures)
        throws
    {
        ck_unpin_thread(0)
        let name = isShared ? "a listener for each of 2 ports" : "one listener, 2 ports"
        let address: Address
        let stop: () -> Void
        let counts: () -> [Int]
        if isShared {
            let first = try Door(nil)
            let doors = [first, try Door(first.address)]
            address = first.address
            stop = { for door in doors { door.stop() } }
            counts = { doors.map { $0.hub.counters.opened } }
        } else {
            let set = try makeSet(2, 1)
            address = try set.hub.listen { _ in Reordering.Echo() }
            stop = { set.stop() }
            counts = { set.counters.ports.map(\.packets) }
        }
        ck_pin_thread(0, 1)
        let (before, own) = (Resources.processTime, Resources.threadTime)
        let rate = try Connections.load(address, seconds: seconds)
        let used = Resources.processTime - before - (Resources.threadTime - own)
        let shares = counts()
        stop()
        figures.add(name, "connections/s", rate.perSecond)
        figures.add(
            "\(name): processor", "µs/connection", used / .microseconds(1) / Double(max(1, rate.count)))
        figures.add(
            "\(name): most on one port", "% of all",
            Double(shares.max() ?? 0) * 100 / Double(max(1, shares.reduce(0, +))))
    }

    static func compare(_ figures: inout Figures) {
        for computes in [false, true] {
            for count in [2, 4] {
                let (many, one) = (name(count, 1, computes), name(1, count, computes))
                figures.compare(many, to: one)
                figures.compare("\(many): processor", to: "\(one): processor")
                figures.compare("\(many): sleeps", to: "\(one): sleeps")
            }
        }
        figures.compare("a listener for each of 2 ports", to: "one listener, 2 ports")
        figures.compare("a listener for each of 2 ports: processor", to: "one listener, 2 ports: processor")
    }
}

/// Gives every client its own bytes back, after 50 µs of computing if it is to.
private final class Computing50: StreamHandler {
    private let computes: Bool

    init(_ computes: Bool) { self.computes = computes }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        if computes {
            let end = monotonicNanoseconds() + UInt64(Computing.work)
            while monotonicNanoseconds() < end {}
        }
        try? connection.send(chunk)
    }
}

/// A hub with a listener at an address that others listen at, too.
private final class Door: PacketOwner, @unchecked Sendable {
    let hub: StreamHub
    let address: Address
    private let pool: AcceptPool

    /// - Parameter address: nil for any that is free.
    init(_ address: Address?) throws(SystemError) {
        var options = StreamHub.Options()
        (options.workers, options.concurrency) = (1, 1)
        let hub = try StreamHub(options)
        let listener = try Socket.listener(on: address ?? .loopback(), isShared: true)
        pool = try AcceptPool(on: listener, options: options.accepts) { arrival in
            _ = try? hub.adopt(arrival.client.socket, handler: Reordering.Echo())
        }
        self.hub = hub
        self.address = try listener.localAddress
        super.init()
        try hub.port.associate(listener, key: key)
        try pool.start()
    }

    override func handle(_ packet: Packet, _ error: SystemError?) { pool.handle(packet, error) }

    func stop() {
        pool.stop()
        hub.stop()
    }
}
