import CompletionPorts
import Glibc
import Kernel
import Stage
import Timeline

/// The echo server under a load of clients, on both drivers; and a few of its operations, one by one.
func playEchoServer(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("An echo server on one port")
    let drivers = options.has(.driver) ? [options.driver] : DriverKind.permitted
    let cores = Kernel.Thread.processors
    var cases = [(clients: 64, workers: 1), (64, cores), (64, 2 * cores), (1_000, cores)]
    if options.clients != nil || options.workers != nil {
        cases = [(options.clients ?? 64, options.workers ?? cores)]
    }
    terminal.say("Messages of 64 bytes, one under way per client. The clients share the processors.")
    terminal.say()
    var rows: [[String]] = []
    var isWhole = true
    var unheard = 0
    for (wanted, workers) in cases {
        let clients = Resources.clientsThatFit(wanted, descriptorsEach: 2)
        if clients < wanted { terminal.say("descriptors suffice for \(clients) clients, not for \(wanted)") }
        for driver in drivers {
            var choices = serverOptions(options, workers: workers)
            choices.port.driver = driver
            choices.maximumConnections = max(choices.maximumConnections, clients)
            let server = try EchoServer(options: choices)
            // Without a time of the reader's: so many round trips, however long they take, so that every client has some.
            var load = ClientLoad(to: server.address, connections: clients, duration: .seconds(60))
            if let seconds = options.seconds {
                load.duration = seconds
            } else {
                load.roundTripsEach = max(4, roundTrips / clients)
            }
            let used = Resources.processTime
            let report = try load.belongsInChild ? load.runInChild() : load.run()
            var own = Resources.processTime - used
            if !load.belongsInChild { own -= report.processorTime }
            let counters = server.counters
            server.stop()
            unheard += report.silent
            isWhole =
                isWhole && report.silent == 0 && report.roundTrips > 0 && counters.accepted == clients
                && counters.refused == 0
            rows.append([
                "\(clients)", "\(workers)", "\(server.driverKind)", "\(Int(report.perSecond))",
                microseconds(report.latency.percentile(50)), microseconds(report.latency.percentile(99)),
                microseconds(own / max(report.roundTrips, 1)),
            ])
        }
    }
    terminal.table(
        ["clients", "workers", "driver", "round trips/s", "median µs", "99 % µs", "server µs each"], rows)
    terminal.say()
    if unheard > 0, options.seconds != nil {
        terminal.say("\(unheard) clients had no answer in that time; on a busy machine give more --seconds")
        terminal.say()
    }
    terminal.say("Two connections, two messages each; a row for each connection's one operation:")
    terminal.draw(try recordedRoundTrips(options))
    terminal.say()
    terminal.claim("every client was served, and every byte came back as it was sent", holds: isWhole)
}

/// As many in all, for each row of the table.
private let roundTrips = 16_000

private func microseconds(_ duration: Duration) -> String { "\(Int(duration / .microseconds(1)))" }

/// Two clients, and what the port and its workers did for them.
private func recordedRoundTrips(_ options: Stage.Options) throws -> Recording {
    var choices = serverOptions(options, workers: options.workers ?? 2)
    choices.pendingAccepts = 1
    let server = try EchoServer(options: choices)
    defer { server.stop() }
    let clients = try (0..<2).map { _ in
        let client = try Socket.connected(to: server.address)
        try client.setBlocking(true)
        return client
    }
    try converse(clients)
    Recorder.start()
    Recorder.nameThread("main")
    try converse(clients)
    try converse(clients)
    return Recorder.stop()
}

/// Each client says something, and hears it again.
private func converse(_ clients: [Socket]) throws {
    let words = Array("sixteen bytes ok".utf8)
    var answer = [UInt8](repeating: 0, count: words.count)
    for client in clients { _ = try words.withUnsafeBytes { try client.sendNow($0) } }
    for client in clients {
        var received = 0
        while received < words.count {
            let count = try answer.withUnsafeMutableBytes {
                try client.receiveNow(into: .init(rebasing: $0[received...]))
            }
            guard let count, count > 0 else { throw SystemError(ECONNRESET, attempted: "hear the echo") }
            received += count
        }
        guard answer == words else { throw SystemError(EBADMSG, attempted: "hear the echo") }
    }
}
