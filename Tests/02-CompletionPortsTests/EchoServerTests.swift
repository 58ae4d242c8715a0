import CKernel
import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Testing

@Suite(.serialized) struct Chapter02CompletionPortsEchoServer {
    // MARK: Serving

    @Test(
        "clients get their own bytes back, over IPv4 and IPv6, with one worker and with several",
        arguments: DriverKind.permitted, [1, 4])
    func echo(driver: DriverKind, workers: Int) throws {
        try verify { complaints in
            for address in Address.loopbacks {
                let server = try EchoServer(on: address, options: .on(driver, workers: workers))
                defer { server.stop() }
                complaints.equal(server.address.isIPv6, address.isIPv6)
                complaints.equal(server.driverKind, driver)
                let load = ClientLoad(
                    to: server.address, connections: 20, messageSize: 700, duration: .seconds(20),
                    roundTripsEach: 50)
                complaints.equal(try load.run().roundTrips, 1_000)
                complaints.equal(server.counters.accepted, 20, "accepted")
                complaints.expect(eventually { server.counters.connections == 0 }, "the connections' end")
            }
        }
    }

    @Test(
        "messages larger than every buffer come back whole and in order",
        arguments: DriverKind.permitted, [1, 4])
    func large(driver: DriverKind, workers: Int) throws {
        try verify { complaints in
            let server = try EchoServer(options: .on(driver, workers: workers))
            defer { server.stop() }
            let load = ClientLoad(
                to: server.address, connections: 4, messageSize: 1 << 20, duration: .seconds(30),
                roundTripsEach: 2)
            complaints.equal(try load.run().roundTrips, 8)
        }
    }

    @Test("a client that leaves in an orderly way is no failure", arguments: DriverKind.permitted)
    func orderlyEnd(driver: DriverKind) throws {
        try verify { complaints in
            let server = try EchoServer(options: .on(driver))
            defer { server.stop() }
            let client = try Socket.connected(to: server.address)
            try client.say("hello")
            try client.shutDownSending()
            complaints.equal(try client.hear(100), "hello", "all of it, and then the end")
            complaints.expect(eventually { server.counters.connections == 0 }, "the connection's end")
            complaints.equal(server.counters.failed, 0, "failures")
        }
    }

    @Test(
        "clients that reset their connections in the middle are counted, and nobody else notices",
        arguments: DriverKind.permitted, [1, 4])
    func resets(driver: DriverKind, workers: Int) throws {
        try verify { complaints in
            let server = try EchoServer(options: .on(driver, workers: workers))
            defer { server.stop() }
            let honest = try Socket.connected(to: server.address)
            for round in 0..<50 {
                let client = try Socket.connected(to: server.address)
                switch round % 3 {
                case 0: break
                case 1: try client.say("in the midd")
                default:
                    try client.say("half heard")
                    _ = try client.hear(4)
                }
                try client.abort()
                try honest.say("still there?")
                complaints.equal(try honest.hear(12), "still there?")
            }
            let isOver = eventually { server.counters.accepted == 51 && server.counters.connections == 1 }
            complaints.expect(isOver, "all but one accepted and gone: \(server.counters)")
            complaints.equal(server.counters.failed, 50, "failed")
            complaints.equal(server.counters.failedAccepts, 0, "failed accepts")
        }
    }

    // MARK: Limits

    @Test(
        "one connection more than the maximum is closed at once, and a place that is free again is taken",
        arguments: DriverKind.permitted)
    func maximum(driver: DriverKind) throws {
        try verify { complaints in
            var options = EchoServer.Options.on(driver)
            options.maximumConnections = 3
            let server = try EchoServer(options: options)
            defer { server.stop() }
            var clients: [Socket] = []
            for _ in 0..<3 {
                let client = try Socket.connected(to: server.address)
                try client.say("me")
                complaints.equal(try client.hear(2), "me")
                clients.append(client)
            }
            for count in 1...5 {
                let surplus = try Socket.connected(to: server.address)
                complaints.equal(try surplus.hear(1), "", "the end, at once")
                complaints.equal(server.counters.refused, count, "refused")
            }
            for client in clients {
                try client.say("and me")
                complaints.equal(try client.hear(6), "and me", "an old client")
            }
            clients.removeFirst().close()
            complaints.expect(eventually { server.counters.connections == 2 }, "a free place")
            let late = try Socket.connected(to: server.address)
            try late.say("at last")
            complaints.equal(try late.hear(7), "at last")
        }
    }

    @Test("options that mean nothing are refused, and leave nothing behind")
    func badOptions() async {
        await #expect(processExitsWith: .success) {
            inChild {
                Resources.settle()
                let before = (Resources.openDescriptors, Resources.threads)
                let changes: [(inout EchoServer.Options) -> Void] = [
                    { $0.workers = 0 }, { $0.workers = -1 }, { $0.pendingAccepts = 0 },
                    { $0.pendingAccepts = -5 }, { $0.maximumConnections = 0 }, { $0.concurrency = -1 },
                ]
                for (number, change) in changes.enumerated() {
                    var options = EchoServer.Options()
                    change(&options)
                    do throws(SystemError) {
                        _ = try EchoServer(options: options)
                        failInChild("option \(number) was accepted")
                    } catch {
                        if error.code != EINVAL { failInChild("option \(number): \(error)") }
                    }
                }
                if !eventually({ before.0 == Resources.openDescriptors && Resources.threads <= before.1 }) {
                    failInChild("\(Resources.whatIsOpen), \(Resources.threads) threads; \(before) before")
                }
            }
        }
    }

    @Test("an address that is taken is one clear line, and nothing is left behind")
    func portInUse() async {
        await #expect(processExitsWith: .success) {
            inChild {
                let first = try EchoServer()
                Resources.settle()
                let before = (Resources.openDescriptors, Resources.threads)
                do throws(SystemError) {
                    _ = try EchoServer(on: first.address)
                    failInChild("the address was given twice")
                } catch {
                    let line = "\(error)"
                    if error.code != EADDRINUSE { failInChild(line) }
                    if line.contains("\n") || !line.contains("\(first.address)") {
                        failInChild("unclear: \(line)")
                    }
                }
                if !eventually({ before.0 == Resources.openDescriptors && Resources.threads <= before.1 }) {
                    failInChild("\(Resources.whatIsOpen), \(Resources.threads) threads; \(before) before")
                }
                let client = try Socket.connected(to: first.address)
                try client.say("untouched")
                if try client.hear(9) != "untouched" { failInChild("the first server was harmed") }
                // Its port is free again as soon as it has stopped.
                first.stop()
                try EchoServer(on: first.address).stop()
            }
        }
    }

    @Test(
        "without a descriptor accepting pauses, and resumes with the first that is free", arguments: drivers)
    func descriptorsRunOut(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                // Before the server starts: a ring takes the limit over when an accept is posted.
                limitDescriptors(to: 100)
                let server = try EchoServer(options: .on(DriverKind(rawValue: driver)!))
                var clients: [Socket] = []
                for _ in 0..<3 {
                    let client = try Socket.connected(to: server.address)
                    try client.say("one of three")
                    if try client.hear(12) != "one of three" { failInChild("not served") }
                    clients.append(client)
                }
                // Room for the client's own descriptor. The server has none for the connection.
                close(takeAllDescriptors().last!)
                let client = try Socket.connected(to: server.address)
                try client.say("anybody?")
                if !eventually({ server.counters.failedAccepts > 0 }) {
                    failInChild("the accept did not fail")
                }
                if try client.hear(8, within: .milliseconds(50)) != "" {
                    failInChild("served without a descriptor")
                }
                // It tries again after each pause, with each of its eight accepts.
                let (attempts, start) = (server.counters.failedAccepts, monotonicNanoseconds())
                if try client.hear(8, within: .milliseconds(100)) != "" {
                    failInChild("served without a descriptor")
                }
                let pauses = Int((monotonicNanoseconds() - start) / 20_000_000)
                if server.counters.failedAccepts - attempts > 8 * (pauses + 2) {
                    failInChild("it tries without a pause")
                }
                for other in clients {
                    try other.say("go on")
                    if try other.hear(5) != "go on" { failInChild("the others are not served") }
                }
                clients.removeFirst().close()
                if try client.hear(8) != "anybody?" { failInChild("accepting did not resume") }
                server.stop()
            }
        }
    }

    @Test(
        "accepting also resumes while every connection stays, when descriptors are free from elsewhere",
        arguments: drivers)
    func descriptorsComeFromElsewhere(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                limitDescriptors(to: 100)
                let server = try EchoServer(options: .on(DriverKind(rawValue: driver)!))
                let faithful = try Socket.connected(to: server.address)
                try faithful.say("I stay")
                if try faithful.hear(6) != "I stay" { failInChild("not served") }
                let taken = takeAllDescriptors()
                close(taken.last!)
                let client = try Socket.connected(to: server.address)
                try client.say("anybody?")
                if !eventually({ server.counters.failedAccepts > 8 }) {
                    failInChild("the accept did not fail again")
                }
                // Nobody sleeps in a worker meanwhile: with a pause before each of them, 20 echoes never take less than
                // 400 ms. Without, they do so once, on a busy machine too.
                let isQuick = eventually(within: .seconds(20)) {
                    let start = monotonicNanoseconds()
                    for _ in 0..<20 {
                        try? faithful.say("go on")
                        if (try? faithful.hear(5)) != "go on" { failInChild("the others are not served") }
                    }
                    return monotonicNanoseconds() - start < 300_000_000
                }
                if !isQuick { failInChild("20 echoes never take less than 300 ms") }
                for descriptor in taken.dropLast() { close(descriptor) }
                if try client.hear(8) != "anybody?" { failInChild("accepting did not resume") }
                server.stop()
            }
        }
    }

    @Test(
        "a server that has no connection whose end it could wait for tries again by itself",
        arguments: drivers)
    func descriptorsRunOutAtOnce(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                limitDescriptors(to: 100)
                let server = try EchoServer(options: .on(DriverKind(rawValue: driver)!))
                let taken = takeAllDescriptors()
                close(taken.last!)
                let client = try Socket.connected(to: server.address)
                try client.say("anybody?")
                if !eventually({ server.counters.failedAccepts > 2 }) {
                    failInChild("the accept did not fail")
                }
                let used = Resources.processTime
                usleep(100_000)
                if Resources.processTime - used > .milliseconds(50) {
                    failInChild("it tries without a pause")
                }
                for descriptor in taken.dropLast() { close(descriptor) }
                if try client.hear(8) != "anybody?" { failInChild("accepting did not resume") }
                server.stop()
            }
        }
    }

    // MARK: What it costs

    @Test(
        "a thousand clients at once cost no thread, and leave nothing behind",
        .enabled(if: Resources.permitsDescriptors(2_500), "the system permits fewer than 2,500 descriptors"),
        arguments: drivers)
    func thousandClients(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                Resources.raiseDescriptorLimit()
                Resources.settle()
                let before = (Resources.openDescriptors, Resources.threads)
                do {
                    let server = try EchoServer(options: .on(DriverKind(rawValue: driver)!, workers: 2))
                    _ = eventually(within: .seconds(1)) { Resources.threads >= before.1 + 2 }
                    let serving = Resources.threads
                    let load = ClientLoad(
                        to: server.address, connections: 1_000, duration: .seconds(20), roundTripsEach: 4)
                    let peak = Counter()
                    let isOver = Gate()
                    let watcher = startThread("watcher") {
                        while !isOver.isOpen {
                            peak.add(Resources.threads - peak.value)
                            usleep(1_000)
                        }
                    }
                    let report = try load.run()
                    isOver.open()
                    watcher.join()
                    if report.roundTrips != 4_000 { failInChild("\(report.roundTrips) round trips") }
                    if server.counters.accepted != 1_000 { failInChild("\(server.counters)") }
                    // The watcher, and the one that notices blocked workers.
                    if peak.peak > serving + 2 { failInChild("\(peak.peak) threads, \(serving) before") }
                    if !eventually({ server.counters.connections == 0 }) { failInChild("\(server.counters)") }
                    server.stop()
                }
                // The runtime's own threads may end meanwhile.
                if !eventually({ before.0 == Resources.openDescriptors && Resources.threads <= before.1 }) {
                    failInChild("\(Resources.whatIsOpen), \(Resources.threads) threads; \(before) before")
                }
            }
        }
    }

    @Test("stopped under load, at any moment, a server leaves nothing behind", arguments: drivers)
    func stopUnderLoad(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                Resources.raiseDescriptorLimit()
                Resources.settle()
                let before = (Resources.openDescriptors, Resources.threads)
                for round in 0..<12 {
                    let server = try EchoServer(
                        options: .on(DriverKind(rawValue: driver)!, workers: round % 2 == 0 ? 1 : 4))
                    let load = ClientLoad(
                        to: server.address, connections: 60, messageSize: 3_000, duration: .seconds(10))
                    let clients = startThread("load") { _ = try? load.run() }
                    // Before, while and after the clients connect.
                    _ = eventually { server.counters.accepted >= round * 10 || round > 6 }
                    if round > 6 { usleep(UInt32(round) * 2_000) }
                    if !boundedWait(.seconds(10), { server.stop() }) { failInChild("round \(round): no end") }
                    if server.counters.connections != 0 { failInChild("round \(round): \(server.counters)") }
                    server.stop()
                    clients.join()
                }
                if !eventually({ before.0 == Resources.openDescriptors && Resources.threads <= before.1 }) {
                    failInChild("\(Resources.whatIsOpen), \(Resources.threads) threads; \(before) before")
                }
            }
        }
    }

    @Test("an idle server with idle connections uses no processor time", arguments: drivers)
    func idle(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                let server = try EchoServer(options: .on(DriverKind(rawValue: driver)!, workers: 4))
                let clients = try (0..<50).map { _ in try Socket.connected(to: server.address) }
                for client in clients {
                    try client.say("and now silence")
                    _ = try client.hear(15)
                }
                // The sampler looks for a tenth of a second longer, and goes to sleep.
                usleep(300_000)
                let before = Resources.processTime
                usleep(500_000)
                let used = Resources.processTime - before
                if used > .milliseconds(3) { failInChild("\(used) in half a second") }
                // And everybody is served after that.
                for client in clients {
                    try client.say("again")
                    if try client.hear(5) != "again" { failInChild("not served") }
                }
                server.stop()
            }
        }
    }

    @Test("no object is made for a round trip, once the server is warm", arguments: drivers)
    func allocations(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                for workers in [1, 2] {
                    var options = EchoServer.Options.on(DriverKind(rawValue: driver)!, workers: workers)
                    // The thread that looks for blocked workers makes a list now and then, however many round trips.
                    options.port.noticesBlocking = false
                    let server = try EchoServer(options: options)
                    let client = try RawClient(server.address)
                    client.roundTrips(200)
                    let objects = ObjectCount()
                    client.roundTrips(1_000)
                    let made = objects.stop()
                    if made > 20 {
                        failInChild("\(made) objects for 1,000 round trips with \(workers) workers")
                    }
                    server.stop()
                }
            }
        }
    }

    @Test("no object is made for a packet that is posted to waiting workers, parked ones among them")
    func allocationsOfPosts() async {
        await #expect(processExitsWith: .success) {
            inChild {
                var options = CompletionPort.Options()
                options.noticesBlocking = false
                let port = try CompletionPort(concurrency: 2, options: options)
                let handled = Counter()
                let workers = try WorkerGroup(4, on: port) { _, _ in handled.add() }
                func post(_ count: Int) throws {
                    for _ in 0..<count {
                        let before = handled.value
                        try port.post(key: 1)
                        while handled.value == before { sched_yield() }
                    }
                }
                try post(200)
                let objects = ObjectCount()
                try post(1_000)
                let made = objects.stop()
                if made > 20 { failInChild("\(made) objects for 1,000 packets") }
                workers.stop()
            }
        }
    }

    @Test(
        "an idle connection takes less than a kilobyte besides its buffer",
        .disabled(if: isSanitized, "a sanitizer has an allocator of its own"),
        .enabled(if: Resources.permitsDescriptors(3_000), "the system permits fewer than 3,000 descriptors"),
        arguments: drivers)
    func memory(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                Resources.raiseDescriptorLimit()
                let server = try EchoServer(options: .on(DriverKind(rawValue: driver)!))
                var clients = try (0..<200).map { _ in try RawClient(server.address) }
                clients.reserveCapacity(2_000)
                for client in clients { client.roundTrips(1) }
                let before = mallinfo2().uordblks + mallinfo2().hblkhd
                for _ in 0..<1_000 {
                    let client = try RawClient(server.address)
                    client.roundTrips(1)
                    clients.append(client)
                }
                let used = Int(mallinfo2().uordblks + mallinfo2().hblkhd - before) / 1_000
                let own = used - EchoServer.bufferSize - RawClient.size
                if own >= 1_024 { failInChild("\(own) bytes for each connection") }
                if own <= 0 { failInChild("\(own) bytes: nothing was measured") }
                server.stop()
            }
        }
    }
}

/// The names of the permitted drivers: what a test hands to a process of its own has to be written down there.
private let drivers = DriverKind.permitted.map(\.rawValue)

extension EchoServer.Options {
    /// A server on one driver.
    static func on(_ driver: DriverKind, workers: Int = 1) -> EchoServer.Options {
        var options = EchoServer.Options()
        options.port.driver = driver
        options.workers = workers
        return options
    }
}

private func limitDescriptors(to count: Int32) {
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var limit = rlimit()
    getrlimit(resource, &limit)
    limit.rlim_cur = UInt(count)
    if setrlimit(resource, &limit) != 0 { failInChild("cannot limit descriptors") }
}

/// Takes every descriptor that this process may still have.
private func takeAllDescriptors() -> [Int32] {
    var taken: [Int32] = []
    while true {
        let next = dup(0)
        if next < 0 { return taken }
        taken.append(next)
    }
}

/// A client that is nothing but a descriptor: what is counted is the server's.
private struct RawClient {
    static let size = MemoryLayout<RawClient>.stride
    private let descriptor: Int32

    init(_ address: Address) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        // Nothing waits for ever: each of these is in a process of its own, which a signal ends then.
        alarm(60)
        var form = sockaddr_in()
        form.sin_family = sa_family_t(AF_INET)
        form.sin_port = address.port.bigEndian
        inet_pton(AF_INET, address.host, &form.sin_addr)
        let result = withUnsafePointer(to: &form) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result != 0 { throw SystemError(errno, attempted: "connect to \(address)") }
    }

    func roundTrips(_ count: Int) {
        var word: UInt64 = 0x6F_68_63_65
        for _ in 0..<count {
            word &+= 1
            var answer: UInt64 = 0
            if send(descriptor, &word, 8, 0) != 8 || recv(descriptor, &answer, 8, Int32(MSG_WAITALL)) != 8
                || answer != word
            {
                failInChild("a round trip failed")
            }
        }
    }
}
