import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// What the drivers have room for, and one more.
@Suite(.serialized) struct Chapter02CompletionPortsEdges {
    /// Reads of one byte. A file's reads do not wait for one another, so all of them are in the driver at once.
    private final class Reads: @unchecked Sendable {
        let file: File
        let requests: [Request]
        /// How often each has come.
        let seen: [Counter]
        private let path: String

        init(_ count: Int) throws {
            path = "/tmp/completion-ports-edge-\(getpid())"
            try writeFile(path, "x")
            file = try File(path)
            requests = (0..<count).map { Request($0, room: 1) }
            seen = requests.map { _ in Counter() }
        }

        deinit {
            file.close()
            unlink(path)
        }

        func post() throws { for request in requests { try file.read(request, into: request.memory) } }

        func note(_ packet: Packet) {
            guard let request = packet.operation as? Request, packet.bytes == 1 else { return }
            seen[request.number].add()
        }

        var handled: Int { seen.reduce(0) { $0 + $1.value } }
        var isEachOnce: Bool { seen.allSatisfy { $0.value == 1 } }
    }

    @Test(
        "edge: more completions than a ring has places for, 8,192, before two workers ask: each comes once",
        arguments: DriverKind.permitted)
    func moreThanARing(_ driver: DriverKind) throws {
        try verify { complaints in
            let port = try makePort(2, driver)
            let reads = try Reads(9_000)
            try port.associate(reads.file, key: 1)
            try reads.post()
            let group = try WorkerGroup(2, on: port) { packet, _ in reads.note(packet) }
            complaints.expect(
                eventually { reads.handled == reads.seen.count }, "\(reads.handled) of \(reads.seen.count)")
            complaints.expect(reads.isEachOnce, "each once")
            group.stop()
        }
    }

    @Test(
        "edge: more completions than a wait takes, and the first is held: a sleeping worker gets the rest",
        arguments: DriverKind.permitted)
    func moreThanAWait(_ driver: DriverKind) throws {
        try verify { complaints in
            // Nobody looks for the one that is held: what wakes the other is what the first has left.
            let port = try makePort(2, driver, noticing: false)
            let reads = try Reads(150)
            try port.associate(reads.file, key: 1)
            let (held, hold) = (Gate(), Gate())
            let workers = [SteppedWorker("A"), SteppedWorker("B")]
            for (index, worker) in workers.enumerated() {
                worker.begin {
                    while case .completed(let packet) = port.dequeue() {
                        reads.note(packet)
                        if !held.isOpen {
                            held.open()
                            hold.pass()
                        }
                    }
                }
                complaints.expect(
                    eventually { port.workers.waiting == index + 1 && worker.isFastAsleep }, "a waiter")
            }
            try reads.post()
            complaints.expect(held.pass(), "the first packet")
            complaints.expect(eventually { reads.handled == 150 }, "\(reads.handled) of 150 came")
            complaints.expect(reads.isEachOnce, "each once")
            hold.open()
            port.close()
            for worker in workers { worker.end() }
        }
    }

    @Test(
        "edge: more notices than a wait takes, 16, and the first worker is held: who asks next gets the others",
        arguments: DriverKind.permitted)
    func moreNoticesThanAWait(_ driver: DriverKind) throws {
        try verify { complaints in
            let port = try makePort(2, driver, noticing: false)
            let pairs = try Pair.several(40)
            for pair in pairs {
                try port.associate(pair.server, key: 1)
                let request = Request(room: 1)
                try pair.server.receive(request, into: request.memory)
                try pair.client.say("x")
            }
            let (a, b) = (PortWorker("A"), SteppedWorker("B"))
            a.ask(port)
            complaints.equal(a.key(), 1)
            let taken = Counter()
            b.begin {
                while taken.value < 39, case .completed = port.dequeue(timeout: Gate.patience) { taken.add() }
            }
            b.finish()
            complaints.equal(taken.value, 39, "beside the one that is held")
            port.close()
            b.end()
            a.worker.end()
            for pair in pairs { pair.server.close() }
        }
    }

    @Test(
        "edge: more requests between two waits than a ring has places for, 256, when they go with the next wait",
        arguments: DriverKind.permitted)
    func moreRequestsThanPlaces(_ driver: DriverKind) throws {
        try verify { complaints in
            var options = CompletionPort.Options()
            options.driver = driver
            options.submission = .withNextWait
            let port = try CompletionPort(concurrency: 1, options: options)
            let reads = try Reads(700)
            try port.associate(reads.file, key: 1)
            try reads.post()
            for _ in 0..<700 { reads.note(try port.next()) }
            complaints.expect(reads.isEachOnce && port.hasNothingMore, "each once")
            port.close()
        }
    }

    @Test(
        "edge: an operation whose packet a closed port has dropped can be posted again",
        arguments: DriverKind.permitted)
    func droppedAndPostedAgain(_ driver: DriverKind) throws {
        try verify { complaints in
            let (port, next) = (try makePort(1, driver), try makePort(1, driver))
            let (pair, other) = (try Pair(), try Pair())
            try port.associate(pair.server, key: 1)
            try next.associate(other.server, key: 2)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            port.close()
            pair.server.close()
            complaints.expect(eventually { port.droppedPackets == 1 }, "the packet is dropped")
            try other.server.receive(request, into: request.memory)
            try other.client.say("again")
            let packet = try next.next()
            complaints.expect(packet.operation === request && packet.key == 2, "its next packet")
            complaints.equal(request.text(packet.bytes), "again")
            other.server.close()
        }
    }

    // I2.5
    @Test(
        "edge: what a waiter has posted itself comes to it or to the newest of the others; over epoll to the newest",
        arguments: DriverKind.permitted, [0, 1, 2])
    func postedByAWaiter(_ driver: DriverKind, _ poster: Int) throws {
        for _ in 0..<20 {
            let port = try makePort(3, driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let request = Request()
            let workers = ["A", "B", "C"].map { PortWorker($0) }
            workers[poster].worker.begin { try? pair.server.receive(request, into: request.memory) }
            workers[poster].worker.finish()
            for (index, worker) in workers.enumerated() { #expect(worker.waits(at: port, as: index + 1)) }
            try pair.client.say("x")
            var taker: Int?
            #expect(
                eventually {
                    taker = workers.firstIndex { $0.worker.isDone }
                    return taker != nil
                })
            let newestOther = poster == 2 ? 1 : 2
            #expect(driver == .epoll ? taker == 2 : taker == poster || taker == newestOther)
            port.close()
            for worker in workers { worker.worker.end() }
            pair.server.close()
        }
    }

    @Test(
        "edge: dequeueNow takes what is queued, within the limit, and neither waits nor asks the driver",
        arguments: DriverKind.permitted)
    func now(_ driver: DriverKind) throws {
        try verify { complaints in
            let port = try makePort(1, driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let request = Request()
            complaints.expect(port.dequeueNow() == nil, "nothing is queued")
            try port.post(key: 7)
            try port.post(key: 8)
            guard case .completed(let first)? = port.dequeueNow() else {
                return complaints.expect(false, "what is queued is taken")
            }
            complaints.equal(first.key, 7)
            // This thread runs, and the limit is 1.
            let other = Gate()
            let thread = startThread("other") { if port.dequeueNow() == nil { other.open() } }
            thread.join()
            complaints.expect(other.isOpen, "the limit holds")
            guard case .completed(let second)? = port.dequeueNow() else {
                return complaints.expect(false, "who asks again has left its place")
            }
            complaints.equal(second.key, 8)
            try pair.server.receive(request, into: request.memory)
            try pair.client.say("here")
            complaints.expect(port.dequeueNow() == nil, "and nobody has asked the driver")
            complaints.equal(request.text(try port.next().bytes), "here")
            try port.post(key: 9)
            port.close()
            if case .completed(let last)? = port.dequeueNow() { complaints.equal(last.key, 9) }
            complaints.expect(port.dequeueNow() == nil, "closed and empty")
            pair.server.close()
        }
    }
}
