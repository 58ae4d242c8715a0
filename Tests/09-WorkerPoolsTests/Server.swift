import CKernel
import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Stage
import Testing
import WorkerPools
import WorkerPoolsPitfalls

@Suite("Chapter 09: the server with logical workers", .serialized)
struct Chapter09WorkerPoolsServer {
    struct Wrong: Error {}

    @Test(
        "Every line has its answer, and what is none is told what there is", arguments: DriverKind.permitted)
    func lines(driver: DriverKind) async throws {
        try await onAThread {
            let server = try makeServer(driver)
            let client = try LineClient(to: try server.listen())
            #expect(try client.ask("hello") == "hello")
            #expect(try client.ask("primes 100") == "25 primes below 100")
            #expect(try client.ask("primes 3") == "1 primes below 3")
            #expect(try client.ask("sleep 1") == "slept 1 ms")
            #expect(try client.ask("workers 3") == "workers: 3")
            #expect(eventually { server.pool.counters.workers == 3 })
            #expect(try client.ask("workers 1000")?.hasPrefix("error: have 1000 workers (0 to 256)") == true)
            // The answer comes a moment before its job is counted.
            #expect(eventually { server.pool.counters.done == 3 })
            #expect(try client.ask("stats")?.hasPrefix("jobs: 3 added, 0 refused, 3 done, 0 failed") == true)
            for line in [
                "", "what", "primes", "primes x", "primes -1", "primes 20000001", "sleep 10001", "hello 1",
            ] {
                #expect(try client.ask(line)?.hasPrefix("error: hello, primes N") == true, "\(line)")
            }
            // A line that is too long ends the conversation, with a word.
            try client.say("hello")
            try client.socket.say(String(repeating: "x", count: 2_000))
            #expect(try client.hear() == "hello")
            #expect(try client.hear()?.contains("no end of line within 1024 bytes") == true)
            #expect(client.socket.isEnded())
            #expect(server.stop())
            #expect(server.hub.counters.alive == 0)
        }
    }

    // I9.5
    @Test(
        "Answers come in the order of the questions, whoever is done first", arguments: DriverKind.permitted)
    func tickets(driver: DriverKind) async throws {
        try await onAThread {
            let (gate, second) = (Gate(), Gate())
            let server = try makeServer(driver, logicalWorkers: 2) {
                $0.probe = { job in if job.command == "primes 10" { gate.pass() } else { second.open() } }
            }
            let client = try LineClient(to: try server.listen())
            try client.socket.say("primes 10\nprimes 20\nhello\n")
            #expect(second.pass())
            #expect(eventually { server.pool.counters.done == 1 })
            #expect(try client.hear(within: .milliseconds(50)) == nil)
            gate.open()
            #expect(try client.hear() == "4 primes below 10")
            #expect(try client.hear() == "8 primes below 20")
            #expect(try client.hear() == "hello")
            #expect(server.stop())
        }
    }

    // I9.5, I9.2
    @Test(
        "A job that fails gives its place up, and the answers behind it come", arguments: DriverKind.permitted
    )
    func skipped(driver: DriverKind) async throws {
        try await onAThread {
            let server = try makeServer(driver, logicalWorkers: 2) {
                $0.probe = { job in if job.command == "primes 10" { throw Wrong() } }
            }
            let client = try LineClient(to: try server.listen())
            try client.socket.say("primes 20\nprimes 10\nprimes 30\nhello\n")
            #expect(try client.hear() == "8 primes below 20")
            #expect(try client.hear() == "10 primes below 30")
            #expect(try client.hear() == "hello")
            #expect(eventually { server.pool.counters.failed == 1 })
            #expect(server.stop())
        }
    }

    // I9.3, I9.5
    @Test(
        "A client that waits for a free place is read on when its jobs have failed",
        arguments: DriverKind.permitted)
    func freedWithoutAnAnswer(driver: DriverKind) async throws {
        try await onAThread {
            let (gate, refused) = (Gate(), Counter())
            let server = try makeServer(driver) {
                $0.streams.maximumPendingSends = 1
                $0.refused = { refused.add() }
                $0.probe = { _ in
                    gate.pass()
                    throw Wrong()
                }
            }
            let client = try LineClient(to: try server.listen())
            try client.socket.say(String(repeating: "primes 10\n", count: 200) + "hello\n")
            // All places are taken, and not one answer will ever leave.
            #expect(eventually { refused.value > 0 })
            gate.open()
            #expect(try client.hear() == "hello")
            #expect(eventually { server.pool.counters.failed == 200 })
            #expect(server.stop())
        }
    }

    // I9.5
    @Test("Jobs that are handed back give their places up, too", arguments: DriverKind.permitted)
    func handedBack(driver: DriverKind) async throws {
        try await onAThread {
            let server = try makeServer(driver, logicalWorkers: 0)
            let client = try LineClient(to: try server.listen())
            try client.socket.say("primes 20\nhello\n")
            #expect(eventually { server.pool.counters.waiting == 1 })
            #expect(try server.pool.stop().map(\.command) == ["primes 20"])
            #expect(try client.hear() == "hello")
            #expect(server.stop())
        }
    }

    // I9.3
    @Test(
        "100 clients that only ask cost a bounded queue, and the memory of their reads",
        arguments: DriverKind.permitted)
    func onlyAsking(driver: DriverKind) async throws {
        try await onAThread {
            let gate = Gate()
            let server = try makeServer(driver) {
                $0.jobs = 32
                $0.probe = { _ in gate.pass() }
            }
            let address = try server.listen()
            let lines = String(repeating: "primes 30\n", count: 50_000)
            let bytes = Array(lines.utf8)
            let clients = try (0..<100).map { _ in try LineClient(to: address) }
            var sent = 0
            // As much as the systems take: half a megabyte each, if they would.
            for client in clients {
                var own = 0
                while own < bytes.count, client.socket.waits(for: POLLOUT, until: .now) {
                    own += try bytes.withUnsafeBytes { bytes in
                        try client.socket.sendNow(UnsafeRawBufferPointer(rebasing: bytes[own...])) ?? 0
                    }
                }
                sent += own
            }
            // Nobody is read from any more: what has been received stays as it is.
            var last = -1
            #expect(
                eventually {
                    defer { last = server.hub.counters.traffic.bytesReceived }
                    usleep(50_000)
                    return server.hub.counters.traffic.bytesReceived == last
                })
            let counters = server.pool.counters
            #expect(counters.peak <= 32 && counters.waiting + counters.running <= 33)
            #expect(counters.added <= 33)
            // Pending reads of 4 KiB, two of them, and one that was on its way when the pause began.
            #expect(last <= 100 * 3 * 4_096, "\(last) bytes received of \(sent)")
            for client in clients { try client.socket.abort() }
            gate.open()
            #expect(
                eventually(within: .seconds(60)) {
                    server.hub.connections.isEmpty && server.pool.queue.count == 0
                })
            #expect(server.stop())
        }
    }

    // I9.3
    @Test(
        "A client that does not read its answers is not read from, and gets all of them when it does",
        arguments: DriverKind.permitted)
    func doesNotRead(driver: DriverKind) async throws {
        try await onAThread {
            let server = try makeServer(driver, logicalWorkers: 2) { $0.jobs = 16 }
            let client = try LineClient(to: try server.listen())
            let count = isSanitized ? 3_000 : 10_000
            let answers = try client.exchange(
                (0..<count).map { $0 % 3 == 0 ? "hello" : "primes \($0 % 3 * 10)" }, within: .seconds(40))
            #expect(answers.count == count)
            let expected = ["hello", "4 primes below 10", "8 primes below 20"]
            #expect(answers.enumerated().allSatisfy { $1 == expected[$0 % 3] })
            #expect(server.pool.counters.unsent == 0)
            #expect(server.stop())
        }
    }

    // I9.3
    @Test(
        "Room that is told between the refusal and the pause is not lost: the question goes into the queue",
        arguments: DriverKind.permitted)
    func toldInBetween(driver: DriverKind) async throws {
        try await onAThread {
            let queue = Guarded<JobQueue?>(nil)
            let refusals = Counter()
            let server = try makeServer(driver, logicalWorkers: 0) {
                $0.jobs = 1
                // At this moment the queue is emptied, and the client, who is not paused yet, is told.
                $0.refused = { if refusals.add() == 1 { _ = queue.locked { $0 }?.take() } }
            }
            queue.locked { $0 = server.pool.queue }
            let client = try LineClient(to: try server.listen())
            try client.socket.say("primes 10\nprimes 20\n")
            #expect(eventually { server.pool.queue.counters.added == 2 })
            #expect(server.pool.queue.take()?.command == "primes 20")
            #expect(server.stop())
        }
    }

    // I9.4
    @Test("The jobs of a client that has left are not begun", arguments: DriverKind.permitted)
    func left(driver: DriverKind) async throws {
        try await onAThread {
            let gate = Gate()
            let server = try makeServer(driver) { $0.probe = { _ in gate.pass() } }
            let client = try LineClient(to: try server.listen())
            try client.socket.say(String(repeating: "primes 30\n", count: 20))
            #expect(eventually { server.pool.counters.waiting == 19 })
            try client.socket.abort()
            #expect(eventually { server.hub.connections.isEmpty && server.pool.counters.waiting == 0 })
            gate.open()
            #expect(eventually { server.pool.counters.done == 1 })
            #expect(eventually { server.pool.counters.departed == 1 })
            #expect(server.stop())
        }
    }

    @Test(
        "A client that ends behind its questions hears all answers, and then the end",
        arguments: DriverKind.permitted)
    func ends(driver: DriverKind) async throws {
        try await onAThread {
            let server = try makeServer(driver, logicalWorkers: 2) { $0.jobs = 4 }
            let client = try LineClient(to: try server.listen())
            try client.socket.say(String(repeating: "primes 30\n", count: 40))
            try client.socket.shutDownSending()
            for _ in 1...40 { #expect(try client.hear() == "10 primes below 30") }
            #expect(client.socket.isEnded())
            #expect(server.stop())
        }
    }

    static let names = DriverKind.permitted.map(\.rawValue)

    @Test("Nothing is left of a server: descriptors, threads and memory are as before", arguments: names)
    func nothingIsLeft(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = try #require(DriverKind(rawValue: driver))
            for _ in 1...2 { try serve(kind) }
            Resources.settle()
            let (descriptors, threads) = (Resources.openDescriptors, Resources.threads)
            let memory = allocated()
            for _ in 1...20 { try serve(kind) }
            #expect(
                eventually { Resources.openDescriptors <= descriptors && Resources.threads <= threads },
                "\(descriptors) descriptors and \(threads) threads before")
            // 160 connections that were kept, with their chunks, would be ten times that.
            #expect(
                isSanitized || allocated() < memory + 128_000, "\(memory) bytes before, \(allocated()) now")
        }
    }
}

/// Bytes that are allocated now.
private func allocated() -> Int { Int(mallinfo2().uordblks + mallinfo2().hblkhd) }

/// A server's whole life, with clients in every state.
private func serve(_ driver: DriverKind) throws {
    let messages = try MessageQueue { _ in }
    let server = try makeServer(driver, ioWorkers: 2, logicalWorkers: 2) {
        $0.jobs = 8
        $0.messages = messages
    }
    let address = try server.listen()
    let clients = try (0..<8).map { _ in try LineClient(to: address) }
    for (number, client) in clients.enumerated() {
        #expect(try client.ask("hello") == "hello")
        try client.socket.say(String(repeating: number % 2 == 0 ? "primes 1000\n" : "sleep 1\n", count: 20))
    }
    try server.pool.setWorkers(4)
    try clients[0].socket.abort()
    #expect(try clients[1].hear() == "slept 1 ms")
    try server.pool.setWorkers(1)
    #expect(server.stop())
    #expect(messages.stop() == 0)
    #expect(server.hub.counters.alive == 0)
}
