import CKernel
import Contexts
import Glibc
import Kernel
import Stage

/// Connections that end in every way there is, in large numbers (chapter 04).
enum Teardown {
    static let connections = 100_000

    /// 100,000 clients on each driver leave at random while the server closes, cancels and sends to all.
    static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        for driver in DriverKind.permitted {
            var options = ContextServer.Options()
            options.port.driver = driver
            let announced = Guarded<[ConnectionID: Int]>([:])
            let server = try ContextServer(options: options) { id, _ in
                announced.locked { $0[id, default: 0] += 1 }
            }
            let table = server.table
            let start = monotonicNanoseconds()
            let report = LeavingClients(to: server.address, count: connections, threads: 4, together: 50).run
            {
                time in
                if let anybody = table.registry.snapshot().first {
                    if time % 2 == 0 { anybody.cancel() } else { anybody.close() }
                }
                if time % 8 == 0 { table.pushAll([LeavingClients.push]) }
            }
            let isClean = server.stop()
            let time = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
            let ledger = table.counters
            let contexts = table.contexts.counters
            terminal.say("\(driver): \(readable(report.connected)) connections in \(readable(time))")
            terminal.say(
                "  announced \(readable(ledger.announced)), released \(readable(ledger.released)), "
                    + "alive \(ledger.alive), contexts in use \(contexts.inUse)")
            terminal.say(
                "  bytes echoed \(readable(report.echoed)), strange \(report.strange), "
                    + "answers missing \(report.missing), not connected \(report.unconnected)")
            let isOnce = announced.locked { $0.count == report.connected && $0.values.allSatisfy { $0 == 1 } }
            holds =
                holds && isClean && isOnce && ledger.opened == report.connected
                && ledger.released == ledger.opened && contexts.inUse == 0 && report.unconnected == 0
                && report.strange == 0 && report.missing == 0
        }
        return holds
    }
}

/// Many connections that only stand there (chapter 04).
enum IdleConnections {
    static let wanted = 15_000

    /// The memory of an idle connection, and what thousands of them cost those that are busy.
    ///
    /// The idle clients are a process of their own: in this one there are descriptors for one end only.
    static func run(_ terminal: Terminal) throws -> Bool {
        let count = Resources.clientsThatFit(wanted, descriptorsEach: 1)
        var options = ContextServer.Options()
        options.maximumConnections = count + 100
        let server = try ContextServer(options: options)
        let load = ClientLoad(to: server.address, connections: 64, duration: .seconds(2))
        _ = try load.run()
        let alone = try load.run().perSecond
        let before = Resources.residentBytes
        let clients = try clients(to: server.address, count)
        defer { clients.send(signal: SIGKILL) }
        guard eventually(within: .seconds(30), { server.table.counters.alive >= count }) else { return false }
        let each = (Resources.residentBytes - before) / count
        let among = try load.run().perSecond
        terminal.say("\(readable(count)) idle connections: \(readable(each)) bytes of memory each")
        terminal.say(
            "64 busy ones: \(readable(alone)) round trips a second alone, \(readable(among)) among the idle ones"
        )
        clients.send(signal: SIGKILL)
        return server.stop() && each < 2_048 && among >= 0.9 * alone
    }

    private static let childName = "idle-clients-"

    /// A process of idle clients, on its way to connect. To be killed.
    static func clients(to server: Address, _ count: Int) throws(SystemError) -> Child {
        try Child(Child.ownPath, ["stress", "\(childName)\(server.port)-\(count)"])
    }

    /// If this process was started to be the idle clients: connects them, and holds them until it is killed.
    static func holdIfChild(_ name: String?) throws {
        guard let name, name.hasPrefix(childName) else { return }
        let numbers = name.dropFirst(childName.count).split(separator: "-").compactMap { Int($0) }
        guard numbers.count == 2, let port = UInt16(exactly: numbers[0]) else { return }
        let clients = try (0..<numbers[1]).map { _ in try Socket.connected(to: .loopback(port: port)) }
        // Bounded, should the one who is to kill this process be gone.
        withExtendedLifetime(clients) { _ = sleep(120) }
    }
}
