import AsyncAwait
import AsyncAwaitPitfalls
import Glibc
import Kernel
import Reordering
import Stage
import Testing

/// A server whose `run` is a task of another executor.
private struct Running {
    let server: AsyncServer
    let main: PortExecutor
    let task: Started<Result<Void, SystemError>>

    init(
        _ driver: DriverKind, _ configure: (inout AsyncServer.Options) -> Void = { _ in },
        _ serve: @escaping AsyncServer.Service = AsyncEcho.service
    ) throws(SystemError) {
        var options = AsyncServer.Options()
        options.hub.port.driver = driver
        (options.grace, options.lingering) = (.milliseconds(200), .milliseconds(200))
        configure(&options)
        let server = try AsyncServer(options: options, serve)
        let main = try makeExecutor(driver)
        (self.server, self.main) = (server, main)
        task = main.start { await outcome { () async throws(SystemError) in try await server.run() } }
    }

    func stop() -> Result<Void, SystemError>? {
        task.task.cancel()
        defer { main.stop() }
        return task.value(on: main, within: .seconds(30))
    }

    var left: [Int] {
        let counters = server.executor.hub.counters
        return [
            server.counters.tasks, counters.connections, counters.alive, counters.chunks.inUse,
            server.executor.counters.awaited, server.executor.counters.strayJobs,
        ]
    }
}

/// A server from its beginning to its end.
private func serveOne(_ driver: DriverKind) throws {
    // A grace that does not end: chapter 10's pool would keep another thread for a while when its timers call.
    let running = try Running(driver, { $0.grace = .seconds(10) })
    let client = try Socket.connected(to: running.server.address)
    if !client.isAnswered() { failInChild("no answer") }
    _ = running.stop()
    client.close()
}

@Suite("Chapter 13: the server", .serialized)
struct Chapter13AsyncAwaitServer {
    // I13.9
    @Test(
        "1,000 clients that leave at random: no byte is wrong, and nothing is left",
        arguments: DriverKind.permitted)
    func leaving(driver: DriverKind) async throws {
        try await onAThread {
            let running = try Running(driver)
            let report = LeavingClients(
                to: running.server.address, count: 1_000,
                ways: LeavingClients.Way.allCases.filter { $0 != .closedByServer },
                seed: 13
            ).run()
            #expect(report.unconnected == 0 && report.strange == 0 && report.missing == 0)
            #expect(eventually { running.server.counters.tasks == 0 })
            #expect(running.server.counters.served + running.server.counters.failed == 1_000)
            #expect(code(running.stop()) == nil)
            #expect(running.left == [0, 0, 0, 0, 0, 0])
        }
    }

    // I13.9
    @Test("ended under load, again and again: nothing is left", arguments: DriverKind.permitted)
    func underLoad(driver: DriverKind) async throws {
        try await onAThread {
            for seed in 1...5 {
                let running = try Running(driver)
                let address = running.server.address
                let clients = startThread("clients") {
                    _ = LeavingClients(to: address, count: 100, threads: 2, seed: UInt64(seed)).run()
                }
                #expect(eventually { running.server.counters.tasks > seed * 3 })
                #expect(code(running.stop()) == nil)
                #expect(running.left == [0, 0, 0, 0, 0, 0])
                clients.join()
            }
        }
    }

    // I13.9
    @Test("no thread and no descriptor is left")
    func resources() async {
        await #expect(processExitsWith: .success) {
            inChild {
                for driver in DriverKind.permitted {
                    // What Swift and chapter 10's clock keep for the whole process is there behind the first round.
                    for round in 0..<3 {
                        Resources.settle()
                        let before = (Resources.openDescriptors, Resources.threads)
                        try serveOne(driver)
                        let isLess = eventually {
                            Resources.openDescriptors <= before.0 && Resources.threads <= before.1
                        }
                        if round > 0, !isLess {
                            failInChild(
                                "\(driver): \(before), then \(Resources.threads) and \(Resources.whatIsOpen)")
                        }
                    }
                }
            }
        }
    }

    // I13.7, I13.9
    @Test("what a task has sent before it is cancelled still arrives, whole", arguments: DriverKind.permitted)
    func lastWords(driver: DriverKind) async throws {
        try await onAThread {
            let answer = [UInt8](repeating: 7, count: 2_000_000)
            let hasSent = Gate()
            let running = try Running(driver, { ($0.grace, $0.lingering) = (.seconds(10), .seconds(10)) }) {
                connection in
                _ = try await connection.next()
                try connection.stream.send(answer.withUnsafeBytes { SharedBytes($0) })
                hasSent.open()
                while try await connection.next() != nil {}
            }
            let client = try Socket.connected(to: running.server.address)
            try client.say("?")
            hasSent.pass()
            running.task.task.cancel()
            #expect(eventually { running.server.counters.tasks == 1 })
            #expect(try client.hearBytes(answer.count + 1) == answer)
            client.close()
            #expect(code(running.stop()) == nil)
            #expect(running.left == [0, 0, 0, 0, 0, 0])
        }
    }

    // I13.9
    @Test("a task that does not look at its cancellation is told of, and does not hold `run` back")
    func stillRunning() async throws {
        try await onAThread {
            let (mayEnd, isIn) = (Gate(), Gate())
            let running = try Running(
                .epoll, { ($0.grace, $0.patience) = (.milliseconds(10), .milliseconds(50)) }
            ) { connection in
                isIn.open()
                mayEnd.pass()
            }
            let client = try Socket.connected(to: running.server.address)
            isIn.pass()
            #expect(code(running.stop()) == ETIMEDOUT)
            #expect(running.server.counters.tasks == 1)
            mayEnd.open()
            #expect(eventually { running.server.counters.tasks == 0 })
            running.server.executor.stop()
            client.close()
        }
    }

    @Test("a server runs once; its address can be taken only once")
    func once() async throws {
        try await onAThread {
            let running = try Running(.epoll)
            let client = try Socket.connected(to: running.server.address)
            #expect(client.isAnswered())
            let again = running.main.start {
                await outcome { () async throws(SystemError) in try await running.server.run() }
            }
            #expect(code(again.value(on: running.main)) == EALREADY)
            #expect(throws: SystemError(EADDRINUSE, attempted: "")) {
                _ = try AsyncServer(on: running.server.address, AsyncEcho.service)
            }
            #expect(code(running.stop()) == nil)
            client.close()
        }
    }

    // I13.2
    @Test("a round trip needs the packet of one read, and no job of its own", arguments: DriverKind.permitted)
    func packets(driver: DriverKind) async throws {
        try await onAThread {
            let running = try Running(driver) { ($0.hub.workers, $0.hub.concurrency) = (1, 1) }
            let client = try Socket.connected(to: running.server.address)
            for _ in 0..<10 { #expect(client.isAnswered()) }
            let before = running.server.executor.counters.postedJobs
            let reads = running.server.executor.hub.counters.reads.reads
            for _ in 0..<1_000 { #expect(client.isAnswered()) }
            #expect(running.server.executor.counters.postedJobs == before)
            // A read for each round trip, as in chapter 05.
            #expect(running.server.executor.hub.counters.reads.reads - reads == 1_000)
            client.close()
            #expect(code(running.stop()) == nil)
        }
    }

    // I13.2
    @Test(
        "no object is made for a round trip, once the server is warm",
        .disabled(if: isSanitized, "a sanitizer has an allocator of its own"),
        arguments: DriverKind.permitted.map(\.rawValue))
    func objects(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                let running = try Running(DriverKind(rawValue: driver)!) {
                    ($0.hub.workers, $0.hub.concurrency) = (1, 1)
                    $0.hub.port.noticesBlocking = false
                }
                let client = try Socket.connected(to: running.server.address)
                try client.setBlocking(true)
                let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 8)
                memory.initializeMemory(as: UInt8.self, repeating: 7)
                func roundTrips(_ count: Int) throws {
                    for _ in 0..<count {
                        _ = try client.sendNow(UnsafeRawBufferPointer(memory))
                        _ = try client.receiveNow(into: memory)
                    }
                }
                try roundTrips(200)
                let objects = ObjectCount()
                try roundTrips(1_000)
                let made = objects.stop()
                if made > 20 { failInChild("\(made) objects for 1,000 round trips") }
                client.close()
                _ = running.stop()
            }
        }
    }
}
