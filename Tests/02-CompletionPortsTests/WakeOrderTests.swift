import CompletionPorts
import CompletionPortsPitfalls
import Kernel
import Stage
import Testing

@Suite(.serialized) struct Chapter02CompletionPortsWakeOrder {
    // I2.2
    @Test("I2.2: packets leave in the order they were queued", arguments: [1, 7, 64])
    func queueOrder(_ batchSize: Int) throws {
        let port = try makePort(1)
        for number in 0..<1_000 { try port.post(key: UInt(number)) }
        var keys: [UInt] = []
        var batch = PacketBatch(capacity: batchSize)
        while keys.count < 1_000 {
            if keys.count % 2 == 0 {
                keys.append(try port.next().key)
            } else {
                guard case .packets(let count) = port.dequeue(into: &batch, timeout: .zero) else { break }
                #expect(count >= 1 && count <= batchSize)
                while let packet = batch.next() { keys.append(packet.key) }
            }
        }
        #expect(keys == (0..<1_000).map { UInt($0) })
        port.close()
    }

    /// Those who asked first wait in the driver, as many as the limit allows, and the rest in the port's own stack.
    /// Every worker that got a packet stays away, asleep: so the port also has to notice that, again and again.
    // I2.5
    @Test(
        "I2.5: waiting workers are released last in, first out, by posts and by I/O",
        arguments: DriverKind.permitted, [1, 2, 4])
    func lastInFirstOut(_ driver: DriverKind, _ limit: Int) throws {
        for count in 2...8 {
            for isPosted in [true, false] {
                let port = try makePort(limit, driver)
                let pairs = try Pair.several(isPosted ? 0 : count)
                let requests = pairs.map { _ in Request() }
                for (pair, request) in zip(pairs, requests) {
                    try port.associate(pair.server, key: 1)
                    // Not by a worker: io_uring would wake that one for it.
                    try pair.server.receive(request, into: request.memory)
                }
                let workers = (0..<count).map { PortWorker("\($0)") }
                for (index, worker) in workers.enumerated() {
                    #expect(worker.waits(at: port, as: index + 1))
                }
                var order: [Int] = []
                for _ in workers {
                    if isPosted { try port.post(key: 1) } else { try pairs[order.count].client.say("x") }
                    var released: Int?
                    _ = eventually {
                        released = workers.indices.first { !order.contains($0) && workers[$0].worker.isDone }
                        return released != nil
                    }
                    order.append(released ?? -1)
                    // Whoever came out of the driver for the newest waits again, and so does a new one there.
                    let left = count - order.count
                    _ = eventually {
                        port.workers.waiting == left
                            && workers.count { $0.worker.isFastAsleep } == left
                    }
                }
                #expect(order == Array((0..<count).reversed()), "\(count) workers, posted: \(isPosted)")
                port.close()
                for worker in workers { worker.worker.end() }
                for pair in pairs { pair.server.close() }
            }
        }
    }

    /// The schedule of Wine's test, recorded on Windows 10.
    // I2.5
    @Test(
        "I2.5: what is posted while workers wait is theirs, the newest first; its poster gets what is left",
        arguments: DriverKind.permitted, [1, 2, 4])
    func postedToThoseWhoWait(_ driver: DriverKind, _ limit: Int) throws {
        for _ in 0..<20 {
            // With a limit of 1 nobody follows before it is said.
            let port = try makePort(limit, driver, noticing: limit > 1)
            let (a, b, poster) = (PortWorker("A"), PortWorker("B"), PortWorker("poster"))
            defer {
                port.close()
                for worker in [a, b, poster] { worker.worker.end() }
            }
            #expect(a.waits(at: port, as: 1))
            #expect(b.waits(at: port, as: 2))
            poster.worker.begin {
                for key in 3...5 { try? port.post(key: UInt(key)) }
            }
            #expect(poster.worker.finish())
            poster.ask(port)
            try #require(b.key() == 3)
            if limit == 1 {
                // Nobody else may run. When B has gone, the poster is the newest of those who wait.
                #expect(poster.isWaiting(at: port, as: 2))
                b.worker.end()
                try #require(poster.key() == 4)
                poster.worker.end()
                #expect(a.key() == 5)
            } else {
                #expect(a.key() == 4)
                #expect(poster.key() == 5)
            }
        }
    }

    @Test(
        "I2.5: a poster does not get back what it posts for a waiting worker",
        arguments: DriverKind.permitted,
        [1, 2, 4])
    func postedForAnother(_ driver: DriverKind, _ limit: Int) throws {
        for _ in 0..<100 {
            let port = try makePort(limit, driver)
            let (waiting, poster) = (PortWorker("waiting"), PortWorker("poster"))
            #expect(waiting.waits(at: port, as: 1))
            let isTimedOut = Counter()
            poster.worker.begin {
                try? port.post(key: 1)
                if port.dequeue(timeout: .zero).isTimedOut { isTimedOut.add() }
            }
            #expect(poster.worker.finish() && isTimedOut.value == 1)
            #expect(waiting.key() == 1)
            port.close()
            for worker in [waiting, poster] { worker.worker.end() }
        }
    }

    @Test(
        "I2.5: a worker whose wait has timed out and asks again is the newest",
        arguments: DriverKind.permitted,
        [1, 2])
    func newestAfterTimeOut(_ driver: DriverKind, _ limit: Int) throws {
        let port = try makePort(limit, driver)
        let (a, b) = (PortWorker("A"), PortWorker("B"))
        #expect(a.waits(at: port, as: 1, timeout: .milliseconds(300)))
        // Beside A, unless the machine is so busy that A has gone already: what follows is the same.
        b.ask(port)
        #expect(eventually { b.worker.isFastAsleep })
        #expect(a.take()?.isTimedOut == true)
        #expect(a.waits(at: port, as: 2))
        try port.post(key: 1)
        #expect(a.key() == 1)
        try port.post(key: 2)
        #expect(b.key() == 2)
        port.close()
        for worker in [a, b] { worker.worker.end() }
    }

    @Test(
        "I2.5: with the newest on its way out of the driver, the next is the parked one, not the oldest there",
        arguments: DriverKind.permitted)
    func parkedInTheMiddle(_ driver: DriverKind) throws {
        let port = try makePort(2, driver)
        let (oldest, newest, parked) = (PortWorker("oldest"), PortWorker("newest"), PortWorker("parked"))
        #expect(oldest.waits(at: port, as: 1))
        #expect(newest.waits(at: port, as: 2, timeout: .milliseconds(500)))
        // Two are in the driver, or one of them has gone already, and counts as running: this one parks.
        parked.ask(port)
        #expect(eventually { parked.worker.isFastAsleep })
        #expect(newest.take()?.isTimedOut == true)
        #expect(newest.waits(at: port, as: 3))
        try port.post(key: 1)
        try port.post(key: 2)
        #expect(newest.key() == 1 && parked.key() == 2)
        port.close()
        for worker in [oldest, newest, parked] { worker.worker.end() }
    }

    @Test(
        "I2.6: a worker on its way out of the driver counts already, and none passes the limit beside it",
        arguments: DriverKind.permitted)
    func onTheWayOut(_ driver: DriverKind) throws {
        for _ in 0..<100 {
            // Not noticing: who has its packet and waits here for the next step would not count.
            let port = try makePort(1, driver, noticing: false)
            let (waiting, poster) = (PortWorker("waiting"), PortWorker("poster"))
            #expect(waiting.waits(at: port, as: 1))
            let isTimedOut = Counter()
            poster.worker.begin {
                try? port.post(key: 1)
                try? port.post(key: 2)
                if port.dequeue(timeout: .zero).isTimedOut { isTimedOut.add() }
            }
            #expect(poster.worker.finish() && isTimedOut.value == 1)
            #expect(waiting.key() == 1)
            port.close()
            for worker in [waiting, poster] { worker.worker.end() }
        }
    }

    @Test("I2.5: with slow traffic one worker handles everything", arguments: DriverKind.permitted)
    func slowTraffic(_ driver: DriverKind) throws {
        let port = try makePort(2, driver)
        let counts = (0..<4).map { _ in Counter() }
        let workers = (0..<4).map { SteppedWorker("\($0)") }
        let total = Counter()
        for (worker, count) in zip(workers, counts) {
            worker.begin {
                while case .completed = port.dequeue() {
                    count.add()
                    total.add()
                }
            }
        }
        let allWait = {
            eventually { port.workers.waiting == 4 && workers.allSatisfy { $0.isFastAsleep } }
        }
        for round in 1...30 {
            #expect(allWait())
            try port.post()
            #expect(eventually { total.value == round })
        }
        #expect(counts.map(\.value).sorted() == [0, 0, 0, 30])
        port.close()
        for worker in workers { worker.end() }
    }

    @Test(
        "I2.2: a worker that asks again gets the oldest packet at once, and no other is woken for it",
        arguments: DriverKind.permitted)
    func asksAgain(_ driver: DriverKind) throws {
        let port = try makePort(1, driver)
        let (busy, waiting) = (SteppedWorker("busy"), PortWorker("waiting"))
        let (hold, taken) = (Gate(), Counter())
        try port.post(key: 1)
        busy.begin {
            while taken.value < 20, case .completed(let packet) = port.dequeue() {
                if packet.key == UInt(taken.value + 1) { taken.add() }
                // Computes, so that the limit is the limit.
                if taken.value == 1 { spin { hold.isOpen } }
            }
        }
        #expect(eventually { taken.value == 1 })
        #expect(waiting.waits(at: port, as: 1))
        for key in 2...20 { try port.post(key: UInt(key)) }
        hold.open()
        #expect(busy.finish())
        #expect(taken.value == 20)
        #expect(waiting.worker.isAsleep && port.workers.waiting == 1)
        port.close()
        #expect(waiting.take()?.isClosed == true)
        busy.end()
        waiting.worker.end()
    }

    @Test("I2.5: the order holds when a worker that was blocked comes back", arguments: DriverKind.permitted)
    func orderAfterBlocking(_ driver: DriverKind) throws {
        let port = try makePort(1, driver)
        let (a, b, c) = (PortWorker("A"), PortWorker("B"), PortWorker("C"))
        try port.post(key: 1)
        a.ask(port)
        // A has its packet and sleeps. B waits, and gets A's place as soon as that is noticed; then C comes.
        #expect(a.key() == 1)
        #expect(b.waits(at: port, as: 1))
        #expect(eventually { port.workers.running == 0 })
        #expect(c.waits(at: port, as: 2))
        // A comes back, and is the newest of all.
        #expect(a.waits(at: port, as: 3))
        for (number, worker) in zip(UInt(2)..., [a, c, b]) {
            try port.post(key: number)
            #expect(worker.key() == number)
        }
        #expect(port.workers.waiting == 0)
        port.close()
        for worker in [a, b, c] { worker.worker.end() }
    }

    @Test(
        "I2.5: the worker that has just been given the place in the driver is the newest, although not awake yet",
        arguments: DriverKind.permitted)
    func placeJustGiven(_ driver: DriverKind) throws {
        for _ in 0..<20 {
            let port = try makePort(1, driver, noticing: false)
            let (a, b, c) = (PortWorker("A"), PortWorker("B"), PortWorker("C"))
            try port.post(key: 1)
            a.ask(port)
            #expect(a.key() == 1)
            #expect(b.waits(at: port, as: 1) && c.waits(at: port, as: 2))
            // C gets the place that is free now, and has no time to take it before the packet comes.
            a.worker.begin { port.blocking { try? port.post(key: 2) } }
            let isNewest = c.key() == 2
            #expect(isNewest)
            port.close()
            for worker in [a, b, c] { worker.worker.end() }
            // Each further round would wait as long.
            if !isNewest { return }
        }
    }

    @Test(
        "I2.5: a worker that has waited long enough leaves, and the order of the others stays",
        arguments: DriverKind.permitted)
    func orderAfterTimeOut(_ driver: DriverKind) throws {
        // The one that leaves is the first, in the driver; in the middle; and the last.
        for leaver in 0..<3 {
            let port = try makePort(1, driver)
            let workers = ["A", "B", "C"].map { PortWorker($0) }
            for (index, worker) in workers.enumerated() {
                // Long enough for the others to come meanwhile, also on a busy machine.
                let timeout: Duration? = index == leaver ? .milliseconds(600) : nil
                #expect(worker.waits(at: port, as: index + 1, timeout: timeout))
            }
            #expect(workers[leaver].take()?.isTimedOut == true)
            let others = workers.indices.filter { $0 != leaver }
            for (number, index) in zip(UInt(1)..., others.reversed()) {
                try port.post(key: number)
                #expect(workers[index].key() == number)
            }
            port.close()
            for worker in workers { worker.worker.end() }
        }
    }
}
