import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Synchronization
import Testing

/// A small generator of random numbers, so that a failing schedule can be run again.
struct Chance {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }
    mutating func below(_ limit: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state >> 11) % limit
    }
}

@Suite(.serialized) struct Chapter02CompletionPortsConcurrency {
    // MARK: The limit

    // I2.6
    @Test(
        "I2.6: no more handlers compute at once than the limit says", arguments: DriverKind.permitted,
        [1, 2])
    func limit(_ driver: DriverKind, _ limit: Int) throws {
        // Without noticing: a sanitizer's own locks hold computing threads up, and that lets others in, rightly.
        let port = try makePort(limit, driver, noticing: false)
        let (inside, handled) = (Counter(), Counter())
        let team = try WorkerGroup(6, on: port) { _, _ in
            inside.add()
            spin(for: .milliseconds(2))
            inside.add(-1)
            handled.add()
        }
        for _ in 0..<40 { try port.post() }
        #expect(eventually { handled.value == 40 })
        #expect(inside.peak == limit)
        #expect(eventually { port.workers == (0, 6) })
        team.stop()
    }

    @Test("I2.6: a limit of 0 is the number of processors, and a negative one is refused")
    func limitOfZero() throws {
        #expect(try makePort(0).concurrency == Kernel.Thread.processors)
        #expect(throws: SystemError.invalid("")) { try makePort(-1) }
    }

    // I2.8
    @Test(
        "I2.8: a blocked worker is noticed within milliseconds, and another takes its place",
        arguments: DriverKind.permitted)
    func noticed(_ driver: DriverKind) throws {
        let port = try makePort(1, driver)
        let (a, b) = (PortWorker("A"), PortWorker("B"))
        var best = Duration.seconds(10)
        for round in 0..<5 {
            try port.post(key: 1)
            a.ask(port)
            #expect(a.key() == 1)
            #expect(b.waits(at: port, as: 1))
            let posted = monotonicNanoseconds()
            try port.post(key: 2)
            #expect(b.key() == 2, "round \(round)")
            best = min(best, .nanoseconds(Int64(monotonicNanoseconds() - posted)))
        }
        #expect(best < .milliseconds(50))
        port.close()
        for worker in [a, b] { worker.worker.end() }
    }

    @Test(
        "I2.8: a request that completes reaches another worker although all that run are blocked",
        arguments: DriverKind.permitted)
    func noticedForIO(_ driver: DriverKind) throws {
        let port = try makePort(2, driver)
        let pair = try Pair()
        try port.associate(pair.server, key: 9)
        let request = Request()
        try pair.server.receive(request, into: request.memory)
        let blocked = [PortWorker("A"), PortWorker("B")]
        for worker in blocked {
            try port.post(key: 1)
            worker.ask(port)
            #expect(worker.key() == 1)
        }
        let c = PortWorker("C")
        #expect(c.waits(at: port, as: 1))
        try pair.client.say("x")
        #expect(c.key() == 9)
        port.close()
        for worker in blocked + [c] { worker.worker.end() }
        pair.server.close()
    }

    @Test(
        "I2.8: blocking { } says it at once; without it, and without noticing, no worker is released",
        arguments: DriverKind.permitted)
    func blockingSaysSo(_ driver: DriverKind) throws {
        let port = try makePort(1, driver, noticing: false)
        let (a, b) = (SteppedWorker("A"), PortWorker("B"))
        let (begin, end, leave) = (Gate(), Gate(), Gate())
        try port.post(key: 1)
        a.begin {
            _ = port.dequeue()
            begin.pass()
            port.blocking { _ = end.pass() }
            leave.pass()
        }
        #expect(eventually { port.workers.running == 1 && a.isAsleep })
        #expect(b.waits(at: port, as: 1))
        try port.post(key: 2)
        #expect(b.take(within: .milliseconds(50)) == nil)
        begin.open()
        #expect(b.key() == 2)
        // D5: A resumes beside B; the limit is exceeded until one of them comes back.
        #expect(port.workers.running == 1)
        end.open()
        #expect(eventually { port.workers.running == 2 })
        #expect(b.waits(at: port, as: 1))
        try port.post(key: 3)
        #expect(b.take(within: .milliseconds(50)) == nil)
        leave.open()
        a.finish()
        a.end()
        // D6: its thread has ended, and so it does not count any more.
        #expect(b.key() == 3)
        port.close()
        b.worker.end()
    }

    @Test(
        "I2.6: a worker that resumes counts again, and new releases wait",
        arguments: DriverKind.permitted)
    func resumes(_ driver: DriverKind) throws {
        let port = try makePort(1, driver)
        let (a, b, c) = (SteppedWorker("A"), SteppedWorker("B"), PortWorker("C"))
        let (wake, stop, stopB, tookTwo) = (Gate(), Gate(), Gate(), Gate())
        try port.post(key: 1)
        a.begin {
            _ = port.dequeue()
            wake.pass()
            spin { stop.isOpen }
        }
        #expect(eventually { port.workers.running == 1 && a.isAsleep })
        b.begin {
            if case .completed = port.dequeue() { tookTwo.open() }
            spin { stopB.isOpen }
        }
        try port.post(key: 2)
        #expect(tookTwo.pass())
        #expect(port.workers.running == 1)
        wake.open()
        #expect(eventually { port.workers.running == 2 })
        // Two compute, one more than the limit. One of them ends: that is one, and the limit is one.
        #expect(c.waits(at: port, as: 1))
        try port.post(key: 3)
        stopB.open()
        b.finish()
        b.end()
        #expect(port.workers.running == 1)
        #expect(c.take(within: .milliseconds(50)) == nil)
        stop.open()
        a.finish()
        a.end()
        #expect(c.key() == 3)
        port.close()
        c.worker.end()
    }

    @Test("I2.8: blocking { } may be nested, may ask ports itself, passes errors on, and counts once")
    func blockingNested() throws {
        let (port, other) = (try makePort(1), try makePort(1))
        let worker = SteppedWorker("A")
        let seen = Complaints()
        worker.begin {
            // Not one of its workers: nothing to say.
            port.blocking { seen.equal(port.workers.running, 0) }
            _ = port.dequeue(timeout: .zero)
            seen.equal(port.workers.running, 1)
            port.blocking {
                seen.equal(port.workers.running, 0)
                port.blocking { seen.equal(port.workers.running, 0) }
                seen.equal(port.workers.running, 0)
            }
            seen.equal(port.workers.running, 1)
            seen.refused(EINVAL, "what throws") { () throws(SystemError) in
                try port.blocking { () throws(SystemError) in throw SystemError.invalid("nothing") }
            }
            seen.equal(port.workers.running, 1)
            port.blocking { _ = port.dequeue(timeout: .zero) }
            seen.equal(port.workers.running, 1)
            port.blocking { _ = other.dequeue(timeout: .zero) }
            seen.equal(port.workers.running, 0)
            seen.equal(other.workers.running, 1)
        }
        #expect(worker.finish())
        #expect(seen.all.isEmpty)
        worker.end()
        #expect(other.workers.running == 0)
    }

    // MARK: Ties

    @Test(
        "I2.6: a worker counts until it asks again, asks another port, or ends; it is tied to the last it asked",
        arguments: DriverKind.permitted)
    func ties(_ driver: DriverKind) throws {
        let (first, second) = (
            try makePort(1, driver, noticing: false), try makePort(1, driver, noticing: false)
        )
        let (a, b) = (PortWorker("A"), PortWorker("B"))
        try first.post(key: 1)
        a.ask(first)
        #expect(a.key() == 1 && first.workers == (1, 0))
        #expect(b.waits(at: first, as: 1))
        try first.post(key: 2)
        #expect(b.take(within: .milliseconds(20)) == nil)
        // Asks another port: the first one's limit is free.
        #expect(a.waits(at: second, as: 1))
        #expect(b.key() == 2 && first.workers == (1, 0))
        // Asks again: the same worker, once.
        #expect(b.waits(at: first, as: 1) && first.workers == (0, 1))
        try first.post(key: 3)
        #expect(b.key() == 3 && first.workers == (1, 0))
        // Ends.
        b.worker.end()
        #expect(first.workers == (0, 0))
        try second.post(key: 4)
        #expect(a.key() == 4 && second.workers == (1, 0))
        a.worker.end()
        #expect(second.workers == (0, 0))
    }

    @Test("ports are independent, associating changes none, and any thread may use them")
    func independent() throws {
        let ports = [try makePort(1), try makePort(3)]
        let pairs = try Pair.several(2)
        for (port, pair) in zip(ports, pairs) { try port.associate(pair.server, key: 5) }
        #expect(ports.map(\.concurrency) == [1, 3])
        inThreads(2) { index in
            try? ports[index].post(key: UInt(index))
            try? ports[1 - index].post(key: 10 + UInt(index))
        }
        for (index, port) in ports.enumerated() {
            let keys = [try port.next().key, try port.next().key]
            #expect(Set(keys) == [UInt(index), 10 + UInt(1 - index)])
            #expect(port.hasNothingMore)
        }
        for pair in pairs { pair.server.close() }
    }

    // MARK: Outcomes

    // I2.3
    @Test(
        "I2.3: nothing in time is its own outcome, with no packet and no count",
        arguments: DriverKind.permitted)
    func timedOut(_ driver: DriverKind) throws {
        let port = try makePort(1, driver)
        for timeout in [Duration.zero, .milliseconds(30), .seconds(-1)] {
            let before = monotonicNanoseconds()
            #expect(port.dequeue(timeout: timeout).isTimedOut)
            var batch = PacketBatch()
            #expect(port.dequeue(into: &batch, timeout: timeout) == .timedOut)
            #expect(batch.count == 0)
            let needed = Duration.nanoseconds(Int64(monotonicNanoseconds() - before))
            #expect(needed >= timeout * 2 && needed < .seconds(5))
        }
        // It runs again, as after a packet; a second one may not, but does not wait longer than it wants to.
        #expect(port.workers == (1, 0))
        let other = PortWorker("B")
        other.ask(port, timeout: .milliseconds(10))
        #expect(other.take()?.isTimedOut == true)
        other.ask(port, timeout: .zero)
        #expect(other.take()?.isTimedOut == true)
        other.worker.end()
        try port.post(key: 1)
        // There is a packet, so no time-out, however short.
        #expect(try port.next(within: .zero).key == 1)
    }

    @Test(
        "I2.6: a time-out of zero asks and does not wait, also when the limit holds a packet back",
        arguments: DriverKind.permitted)
    func zeroUnderTheLimit(_ driver: DriverKind) throws {
        let port = try makePort(1, driver, noticing: false)
        let (busy, other) = (PortWorker("busy"), PortWorker("other"))
        for key in 1...2 { try port.post(key: UInt(key)) }
        busy.ask(port)
        #expect(busy.key() == 1)
        other.ask(port, timeout: .zero)
        #expect(other.take()?.isTimedOut == true)
        #expect(port.queuedPackets == 1)
        // The time-out counts as running, and so does the busy one; whoever asks again is one less.
        other.worker.end()
        busy.ask(port, timeout: .zero)
        #expect(busy.key() == 2)
        port.close()
        busy.worker.end()
    }

    @Test("a time-out may be as long as a number goes, and a limit as large", arguments: DriverKind.permitted)
    func enormous(_ driver: DriverKind) throws {
        let port = try makePort(.max, driver)
        for timeout in [Duration.seconds(Int64.max), .seconds(1 << 33), .seconds((1 << 32) - 1)] {
            let waiting = PortWorker("waiting")
            #expect(waiting.waits(at: port, as: 1, timeout: timeout))
            try port.post(key: 7)
            #expect(waiting.key() == 7)
            waiting.worker.end()
        }
        #expect(port.dequeue(timeout: .seconds(Int64.min)).isTimedOut)
    }

    @Test("I2.5: a post satisfies one waiter and no other", arguments: DriverKind.permitted, [1, 4])
    func oneWaiter(_ driver: DriverKind, _ limit: Int) throws {
        let port = try makePort(limit, driver)
        let workers = (0..<4).map { PortWorker("\($0)") }
        for (index, worker) in workers.enumerated() { #expect(worker.waits(at: port, as: index + 1)) }
        try port.post(key: 1)
        #expect(workers[3].key() == 1)
        #expect(workers[..<3].allSatisfy { $0.isWaiting(at: port, as: 3) })
        port.close()
        for worker in workers { worker.worker.end() }
    }

    @Test(
        "a batch is what is there, up to its room; it never waits to be filled",
        arguments: DriverKind.permitted)
    func batches(_ driver: DriverKind) throws {
        let port = try makePort(2, driver)
        var batch = PacketBatch(capacity: 4)
        for number in 1...6 { try port.post(key: UInt(number)) }
        #expect(port.dequeue(into: &batch) == .packets(4))
        #expect(port.dequeue(into: &batch) == .packets(1))
        #expect(batch.count == 5)
        #expect((1...5).map { _ in batch.next()?.key } == [1, 2, 3, 4, 5])
        #expect(port.dequeue(into: &batch) == .packets(1))
        #expect(batch.next()?.key == 6 && batch.next() == nil)
        #expect(port.dequeue(into: &batch, timeout: .zero) == .timedOut)
        // There is no batch without room.
        var none = PacketBatch(capacity: 0)
        for number in 1...2 { try port.post(key: UInt(number)) }
        #expect(none.capacity == 1 && port.dequeue(into: &none) == .packets(1))
        #expect(none.next()?.key == 1 && port.dequeue(into: &none) == .packets(1))
        port.close()
        #expect(port.dequeue(into: &batch) == .closed)
    }

    @Test("a batch is a share where several may run", arguments: DriverKind.permitted)
    func shares(_ driver: DriverKind) throws {
        let port = try makePort(2, driver)
        let other = PortWorker("B")
        try port.post()
        other.ask(port)
        #expect(other.key() == 0)
        var batch = PacketBatch(capacity: 64)
        for _ in 0..<9 { try port.post() }
        #expect(port.dequeue(into: &batch) == .packets(5))
        other.worker.end()
        // Nobody to share with.
        #expect(port.dequeue(into: &batch) == .packets(4))
    }

    // MARK: Closing

    /// Whoever takes the last packet along must not forget the others.
    @Test(
        "I2.9: closing wakes those in the driver also when one of them leaves with a packet",
        arguments: DriverKind.permitted, [1, 2, 3])
    func closeWithPacket(_ driver: DriverKind, _ limit: Int) throws {
        for _ in 0..<30 {
            let port = try makePort(limit, driver, noticing: false)
            let (packets, closed, allClosed) = (Counter(), Counter(), Gate())
            let workers = (0..<4).map { SteppedWorker("\($0)") }
            for (index, worker) in workers.enumerated() {
                worker.begin {
                    if case .completed = port.dequeue() {
                        packets.add()
                        // Stays in its handler until the others have heard of the end.
                        allClosed.pass()
                        if port.dequeue().isClosed { closed.add() }
                    } else {
                        closed.add()
                    }
                }
                #expect(eventually { port.workers.waiting == index + 1 && worker.isFastAsleep })
            }
            try port.post()
            port.close()
            #expect(eventually { closed.value == 3 })
            allClosed.open()
            for worker in workers { worker.end() }
            #expect(packets.value == 1 && closed.value == 4)
        }
    }

    /// On io_uring what is still pending has to be looked after: whoever does that must not take the wake-ups.
    @Test(
        "I2.9: closing wakes every waiter also while operations are pending",
        arguments: DriverKind.permitted,
        [1, 2, 4])
    func closeWhilePending(_ driver: DriverKind, _ limit: Int) throws {
        for _ in 0..<20 {
            let port = try makePort(limit, driver)
            let pairs = try Pair.several(3)
            let requests = pairs.map { _ in Request() }
            for (pair, request) in zip(pairs, requests) {
                try port.associate(pair.server, key: 1)
                try pair.server.receive(request, into: request.memory)
            }
            let workers = (0..<4).map { PortWorker("\($0)") }
            for (index, worker) in workers.enumerated() { #expect(worker.waits(at: port, as: index + 1)) }
            port.close()
            for worker in workers { #expect(worker.take(within: .seconds(5))?.isClosed == true) }
            for worker in workers { worker.worker.end() }
            for pair in pairs { pair.server.close() }
            #expect(eventually { port.droppedPackets == 3 })
            #expect(requests.allSatisfy { !$0.isPending })
        }
    }

    // MARK: Packets that are left for their bringer

    @Test(
        "I2.7: what a handler's own call completes reaches an idle worker soon, if the handler goes on computing",
        arguments: DriverKind.permitted)
    func leftForItsBringer(_ driver: DriverKind) throws {
        let port = try makePort(2, driver)
        let pair = try Pair()
        try port.associate(pair.server, key: 7)
        let (a, b) = (SteppedWorker("A"), PortWorker("B"))
        let server = pair.server
        var best = Duration.seconds(10)
        for _ in 0..<5 {
            let (ready, begin, stop) = (Gate(), Gate(), Gate())
            let request = Request()
            try port.post(key: 1)
            a.begin {
                _ = port.dequeue()
                ready.open()
                begin.pass()
                try? server.send(request, from: .init(rebasing: UnsafeRawBufferPointer(request.memory)[..<1]))
                spin { stop.isOpen }
            }
            #expect(ready.pass())
            #expect(b.waits(at: port, as: 1))
            let before = monotonicNanoseconds()
            begin.open()
            #expect(b.key() == 7)
            best = min(best, .nanoseconds(Int64(monotonicNanoseconds() - before)))
            stop.open()
            #expect(a.finish())
        }
        #expect(best < .milliseconds(20))
        port.close()
        a.end()
        b.worker.end()
        pair.server.close()
    }

    // MARK: Nothing is left behind

    @Test("ports go with their last reference, whoever has it: no thread and no descriptor stays")
    func nothingStays() async {
        await #expect(processExitsWith: .success) {
            inChild {
                Resources.settle()
                let before = (Resources.threads, Resources.openDescriptors)
                for round in 0..<60 {
                    for driver in DriverKind.permitted {
                        // Two that are tied to it, so that there is a sampler; and the port goes while it looks.
                        let workers = [PortWorker("A"), PortWorker("B")]
                        var port: CompletionPort? = try makePort(1, driver)
                        for worker in workers {
                            worker.ask(port!, timeout: .microseconds(round * 40))
                            #expect(worker.take() != nil)
                        }
                        if round % 2 == 0 { port!.close() }
                        if round % 3 == 0 { for worker in workers { worker.worker.end() } }
                        port = nil
                        for worker in workers { worker.worker.end() }
                    }
                }
                let isBack = eventually { (Resources.threads, Resources.openDescriptors) == before }
                #expect(
                    isBack, "\(Resources.threads), \(Resources.openDescriptors) instead of \(before)")
            }
        }
    }

    @Test("an idle port sleeps: its workers, and whoever watches them")
    func idle() async {
        await #expect(processExitsWith: .success) {
            inChild {
                for driver in DriverKind.permitted {
                    let port = try makePort(2, driver)
                    let team = try WorkerGroup(4, on: port) { _, _ in }
                    for _ in 0..<100 { try port.post() }
                    #expect(eventually { port.workers == (0, 4) })
                    // Long enough for the sampler to lose its patience.
                    Gate().pass(within: .milliseconds(400))
                    let before = Resources.processTime
                    Gate().pass(within: .milliseconds(500))
                    let used = Resources.processTime - before
                    #expect(used < .milliseconds(5), "an idle port used \(used)")
                    team.stop()
                }
            }
        }
    }
}

@Suite(.serialized) struct Chapter02CompletionPortsStress {
    /// Every packet is dequeued once and only once, and none stays queued while somebody waits who may run.
    @Test(
        "rules 1 to 4 and 11: posts, I/O, blocking, time-outs and a close at random; each packet comes once",
        arguments: DriverKind.permitted, 1...8)
    func randomSchedule(_ driver: DriverKind, _ seed: Int) throws {
        var chance = Chance(UInt64(seed))
        let workers = 1 + chance.below(6)
        let port = try makePort(1 + chance.below(4), driver, noticing: chance.below(4) != 0)
        let pair = try Pair()
        try port.associate(pair.server, key: 1 << 40)
        let storm = Storm(port, pair)
        try storm.prime(4)
        let threads = (0..<workers).map { index in
            startThread("worker \(index)") { storm.work(UInt64(seed * 100 + index)) }
        }
        let posters = (0..<2).map { index in
            startThread("poster \(index)") { storm.post(1_500, UInt64(seed * 1_000 + index)) }
        }
        for poster in posters { poster.join() }
        // Nobody posts any more but the handlers; all that was posted has to be taken, with nobody's help.
        let isEmpty = eventually(within: .seconds(5)) { storm.isSettled }
        #expect(isEmpty, "\(port.queuedPackets) left, \(port.workers), \(storm.summary)")
        pair.server.close()
        // Whoever takes a cancelled receive may post once more.
        let isSettled = eventually(within: .seconds(5)) { storm.receivesPending == 0 && storm.isSettled }
        #expect(isSettled, "\(storm.summary)")
        let left = port.close(draining: false)
        let ended = boundedWait(.seconds(5)) { for thread in threads { thread.join() } }
        #expect(ended, "\(port.workers)")
        #expect(left.isEmpty && port.droppedPackets == 0)
        #expect(storm.twice == 0)
        #expect(storm.taken == storm.posted && storm.refusedPosts.value == 0)
    }
}

/// What the random schedule does.
private final class Storm: @unchecked Sendable {
    let port: CompletionPort
    let pair: Pair
    private let sent = Counter()
    private let received = Counter()
    private let bytesIn = Counter()
    private let bytesOut = Counter()
    private let pending = Counter()
    let refusedPosts = Counter()
    private let serial = Lock()
    private var seen = [Bool](repeating: false, count: 100_000)
    private var duplicates = 0

    init(_ port: CompletionPort, _ pair: Pair) {
        self.port = port
        self.pair = pair
    }

    var posted: Int { sent.value }
    var taken: Int { received.value }
    var twice: Int { serial.locked { duplicates } }
    var receivesPending: Int { pending.value }
    /// The bytes first: once they are here, no handler of theirs is left that could post.
    var isSettled: Bool { bytesIn.value == bytesOut.value && taken == posted && port.queuedPackets == 0 }
    var summary: String { "\(taken) of \(posted) packets, \(bytesIn.value) of \(bytesOut.value) bytes" }

    func prime(_ count: Int) throws {
        for _ in 0..<count { receive(Request(room: 16)) }
    }

    private func receive(_ operation: Request) {
        pending.add()
        do { try pair.server.receive(operation, into: operation.memory) } catch { pending.add(-1) }
    }

    func send(_ key: Int? = nil) {
        let number = sent.add()
        do { try port.post(key: UInt(number)) } catch { refusedPosts.add() }
    }

    func post(_ count: Int, _ seed: UInt64) {
        var chance = Chance(seed)
        for _ in 0..<count {
            switch chance.below(10) {
            case 0: pause(chance.below(300))
            case 1...3:
                var byte: UInt8 = 1
                if (try? withUnsafeBytes(of: &byte) { try pair.client.sendNow($0) }) == 1 { bytesOut.add() }
            default: send()
            }
        }
    }

    private func pause(_ microseconds: Int) {
        let gate = Gate()
        gate.pass(within: .microseconds(microseconds))
    }

    func work(_ seed: UInt64) {
        var chance = Chance(seed)
        var batch = PacketBatch(capacity: 8)
        while true {
            let timeout: Duration? = chance.below(3) == 0 ? .microseconds(chance.below(500)) : nil
            if chance.below(4) == 0 {
                switch port.dequeue(into: &batch, timeout: timeout) {
                case .packets: while let packet = batch.next() { handle(packet, packet.error, &chance) }
                case .timedOut: continue
                case .closed: return
                }
            } else {
                switch port.dequeue(timeout: timeout) {
                case .completed(let packet): handle(packet, nil, &chance)
                case .failed(let packet, let error): handle(packet, error, &chance)
                case .timedOut: continue
                case .closed: return
                }
            }
        }
    }

    private func handle(_ packet: Packet, _ error: SystemError?, _ chance: inout Chance) {
        switch chance.below(40) {
        case 0: pause(chance.below(3_000))
        case 1...2: port.blocking { pause(chance.below(500)) }
        case 3...6: spin(for: .microseconds(chance.below(100)))
        case 7...9: send()
        default: break
        }
        // Last, so that nothing more comes of a packet that has been counted.
        if let operation = packet.operation as? Request {
            pending.add(-1)
            bytesIn.add(packet.bytes)
            if error == nil { receive(operation) }
        } else {
            serial.locked {
                if seen[Int(packet.key)] { duplicates += 1 }
                seen[Int(packet.key)] = true
            }
            received.add()
        }
    }
}
