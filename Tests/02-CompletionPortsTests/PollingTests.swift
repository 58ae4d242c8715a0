import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// What a port promises holds as well when a worker that is alone in the driver polls for a while before it sleeps.
@Suite(.serialized) struct Chapter02CompletionPortsPolling {
    private static func port(
        _ driver: DriverKind, _ concurrency: Int, polls: Duration, noticing: Bool = true
    ) throws -> CompletionPort {
        var options = CompletionPort.Options()
        options.driver = driver
        options.pollBeforeSleep = polls
        options.noticesBlocking = noticing
        return try CompletionPort(concurrency: concurrency, options: options)
    }

    @Test(
        "polling: a post, a completion and a close reach a worker while it polls, and when it has gone to sleep",
        arguments: DriverKind.permitted, [1, 2])
    func newsReaches(_ driver: DriverKind, _ limit: Int) throws {
        for polls in [Duration.seconds(30), .milliseconds(1)] {
            let port = try Self.port(driver, limit, polls: polls)
            let pair = try Pair()
            try port.associate(pair.server, key: 2)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            let worker = PortWorker("A")
            // Polling it is never asleep for long; after a millisecond of it, it is.
            func waits() -> Bool {
                worker.ask(port)
                return eventually {
                    port.workers.waiting == 1 && (polls > .seconds(1) || worker.worker.isFastAsleep)
                }
            }
            #expect(waits())
            try port.post(key: 1)
            #expect(worker.key() == 1)
            #expect(waits())
            try pair.client.say("x")
            #expect(worker.key() == 2)
            #expect(waits())
            port.close()
            #expect(worker.take()?.isClosed == true)
            worker.worker.end()
            pair.server.close()
        }
    }

    @Test("polling: it ends with the time-out, and not with its own time", arguments: DriverKind.permitted)
    func timedOut(_ driver: DriverKind) throws {
        let port = try Self.port(driver, 2, polls: .seconds(60))
        for timeout in [Duration.zero, .milliseconds(20)] {
            let worker = PortWorker("A")
            worker.ask(port, timeout: timeout)
            #expect(worker.take()?.isTimedOut == true)
            worker.worker.end()
        }
    }

    @Test(
        "polling: the newest waiter still goes first, and one packet releases one worker",
        arguments: DriverKind.permitted, [1, 2])
    func order(_ driver: DriverKind, _ limit: Int) throws {
        let port = try Self.port(driver, limit, polls: .milliseconds(2))
        let workers = ["A", "B", "C"].map { PortWorker($0) }
        for (index, worker) in workers.enumerated() { #expect(worker.waits(at: port, as: index + 1)) }
        for (number, worker) in zip(UInt(1)..., workers.reversed()) {
            try port.post(key: number)
            #expect(worker.key() == number)
        }
        port.close()
        for worker in workers { worker.worker.end() }
    }

    @Test("polling: an idle port sleeps all the same", arguments: DriverKind.permitted)
    func idle(_ driver: DriverKind) throws {
        let port = try Self.port(driver, 2, polls: .milliseconds(1))
        let (a, b) = (PortWorker("A"), PortWorker("B"))
        #expect(a.waits(at: port, as: 1) && b.waits(at: port, as: 2))
        port.close()
        for worker in [a, b] { worker.worker.end() }
    }

    // I2.1
    @Test(
        "polling: every packet comes once, whatever workers, posts and completions do, and closing ends them all",
        arguments: DriverKind.permitted, [1, 2, 3])
    func everyPacketOnce(_ driver: DriverKind, _ limit: Int) throws {
        for (polls, isNoticing) in [(Duration.microseconds(20), true), (.milliseconds(3), false)] {
            try verify { complaints in
                let port = try Self.port(driver, limit, polls: polls, noticing: isNoticing)
                let pairs = try Pair.several(4)
                let (posts, messages) = (2_000, 300)
                let (posted, heard) = (Counter(), Counter())
                let group = try WorkerGroup(limit + 1, on: port) { packet, _ in
                    guard let request = packet.operation as? Request else { return _ = posted.add() }
                    // A byte, or the end of the stream after the last one.
                    guard packet.bytes > 0 else { return }
                    heard.add()
                    try pairs[request.number].server.receive(request, into: request.memory)
                }
                for (number, pair) in pairs.enumerated() {
                    try port.associate(pair.server, key: 1)
                    let request = Request(number, room: 1)
                    try pair.server.receive(request, into: request.memory)
                }
                inThreads(2) { index in
                    guard index > 0 else {
                        for _ in 0..<posts { try? port.post() }
                        return
                    }
                    for message in 0..<messages {
                        try? pairs[message % pairs.count].client.say("x")
                        // So that the workers fall asleep, or nearly, again and again.
                        if message % 7 == 0 { usleep(UInt32(message % 5) * 700) }
                    }
                }
                complaints.expect(
                    eventually { posted.value == posts && heard.value == messages },
                    "\(posted.value) of \(posts) posted, \(heard.value) of \(messages) heard")
                complaints.expect(boundedWait(Gate.patience) { group.stop() }, "the end of the workers")
                complaints.equal(group.failedPackets, 0, "errors")
                complaints.equal(posted.value, posts)
                complaints.equal(heard.value, messages)
                for pair in pairs { pair.server.close() }
            }
        }
    }
}
