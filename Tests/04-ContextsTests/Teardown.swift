import Contexts
import Kernel
import Stage
import Testing

@Suite("Chapter 04: contexts, from beginning to end", .serialized)
struct Chapter04ContextsTeardown {
    // I4.2, I4.3, I4.4
    @Test(
        "2,000 clients leave at random while others close, cancel and send to all: one announcement, one release each",
        arguments: DriverKind.permitted)
    func teardown(driver: DriverKind) async throws {
        try await onAThread {
            let announced = Guarded<[ConnectionID: Int]>([:])
            var options = ContextServer.Options()
            options.port.driver = driver
            let server = try ContextServer(options: options) { id, _ in
                announced.locked { $0[id, default: 0] += 1 }
            }
            let table = server.table
            let report = LeavingClients(to: server.address, count: 2_000, threads: 4, together: 25, seed: 7)
                .run { time in
                    if let anybody = table.registry.snapshot().first {
                        if time % 2 == 0 { anybody.cancel() } else { anybody.close() }
                    }
                    if time % 8 == 0 { table.pushAll([LeavingClients.push]) }
                }
            #expect(server.stop())
            let ledger = table.counters
            #expect(report.unconnected == 0)
            #expect(report.connected == 2_000)
            #expect(ledger.opened == 2_000)
            #expect(ledger.announced == 2_000)
            #expect(ledger.released == 2_000)
            #expect(announced.locked { $0.count } == 2_000)
            #expect(announced.locked { $0.values.allSatisfy { $0 == 1 } })
            #expect(table.contexts.counters.inUse == 0)
            #expect(table.registry.snapshot().isEmpty)
            #expect(report.strange == 0)
            #expect(report.missing == 0)
            #expect(report.echoed > 0)
        }
    }

    // I4.2, I4.7
    @Test(
        "who is found in the table can be sent to: every post brings its packet",
        arguments: DriverKind.permitted)
    func foundIsAssociated(driver: DriverKind) async throws {
        try await onAThread {
            var options = ContextServer.Options()
            options.port.driver = driver
            let server = try ContextServer(options: options)
            let table = server.table
            // Somebody sends to whoever has just come in, all the time.
            let report = LeavingClients(
                to: server.address, count: 1_500, threads: 2, together: 5,
                ways: [.afterAnswer, .withoutAnswer], seed: 3
            ).run { _ in
                for _ in 1...200 { table.pushAll([LeavingClients.push]) }
            }
            #expect(server.stop())
            #expect(report.connected == 1_500)
            #expect(table.contexts.counters.inUse == 0)
        }
    }

    @Test("nothing is left of a server: descriptors and threads are as before", arguments: names)
    func nothingIsLeft(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                let kind = try #require(DriverKind(rawValue: driver))
                // The first one opens what stays for the life of the process.
                try serve(kind)
                Resources.settle()
                let (descriptors, threads) = (Resources.openDescriptors, Resources.threads)
                try serve(kind)
                let isAsBefore = eventually {
                    Resources.openDescriptors <= descriptors && Resources.threads <= threads
                }
                #expect(isAsBefore, "\(descriptors) descriptors and \(threads) threads before")
            }
        }
    }

    @Test(
        "a client that says nothing is closed by the idle sweep; one that speaks stays",
        arguments: DriverKind.permitted)
    func idleSweep(driver: DriverKind) async throws {
        try await onAThread {
            var options = ContextServer.Options()
            options.port.driver = driver
            options.idleLimit = .milliseconds(400)
            let server = try ContextServer(options: options)
            let (silent, busy) = (
                try Socket.connected(to: server.address), try Socket.connected(to: server.address)
            )
            let isClosed = try eventually {
                _ = try [UInt8](arrayLiteral: 7).withUnsafeBytes { try busy.sendNow($0) }
                var byte: UInt8 = 0
                return try withUnsafeMutableBytes(of: &byte) { try silent.receiveNow(into: $0) } == 0
            }
            #expect(isClosed)
            // The client may see the end a moment before it is announced.
            #expect(eventually { server.table.counters.reasons == [.cancelled: 1] })
            #expect(server.stop())
            withExtendedLifetime((silent, busy)) {}
        }
    }

    @Test("one connection more than the maximum is closed at once, counted, and nobody else's problem")
    func tooMany() async throws {
        try await onAThread {
            var options = ContextServer.Options()
            options.maximumConnections = 2
            let server = try ContextServer(options: options)
            var clients: [Socket] = []
            for _ in 1...2 { clients.append(try Socket.connected(to: server.address)) }
            #expect(eventually { server.table.counters.opened == 2 })
            let third = try Socket.connected(to: server.address)
            #expect(third.isEnded())
            #expect(server.table.counters.refused == 1)
            #expect(server.table.counters.opened == 2 && server.table.counters.reasons.isEmpty)
            let sent = try [UInt8](repeating: 7, count: 3).withUnsafeBytes { try clients[0].sendNow($0) }
            #expect(sent == 3)
            var answer: UInt8 = 0
            #expect(
                try eventually {
                    try withUnsafeMutableBytes(of: &answer) { try clients[0].receiveNow(into: $0) } == 1
                })
            #expect(answer == 7)
            #expect(server.stop())
            withExtendedLifetime(third) {}
        }
    }

    @Test("no limit for connections is none for their contexts")
    func noLimit() async throws {
        try await onAThread {
            var options = ContextServer.Options()
            options.maximumConnections = .max
            let server = try ContextServer(options: options)
            let client = try Socket.connected(to: server.address)
            _ = try [UInt8](arrayLiteral: 7).withUnsafeBytes { try client.sendNow($0) }
            var answer: UInt8 = 0
            #expect(
                try eventually {
                    try withUnsafeMutableBytes(of: &answer) { try client.receiveNow(into: $0) } == 1
                })
            #expect(answer == 7)
            #expect(server.stop())
        }
    }

    static let names = DriverKind.permitted.map(\.rawValue)
}

/// A server's whole life, with some clients.
private func serve(_ driver: DriverKind) throws {
    var options = ContextServer.Options()
    options.port.driver = driver
    options.idleLimit = .seconds(5)
    let server = try ContextServer(options: options)
    let report = LeavingClients(to: server.address, count: 100).run()
    #expect(report.connected == 100)
    #expect(server.stop())
}
