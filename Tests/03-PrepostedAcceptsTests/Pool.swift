import CompletionPorts
import Glibc
import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage
import Testing

/// What the pool promises, beside what the pitfalls show.
@Suite(.serialized) struct Chapter03PrepostedAcceptsPool {
    @Test(
        "I3.2, I3.3, I3.10: 10,000 clients in turn and 2,000 at once through a pool of 10, and nothing is left",
        .enabled(if: Resources.permitsDescriptors(5_000), "the system permits fewer than 5,000 descriptors"),
        arguments: words)
    func many(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                try ManyClients.run(DriverKind(rawValue: driver)!)
            }
        }
    }

    @Test(
        "I3.4: 200 silent clients hold no honest one up for longer than the sweep's interval",
        arguments: DriverKind.permitted)
    func silent(driver: DriverKind) throws {
        let interval = Duration.seconds(1)
        let outcome = try inTime { try SilentAttack.run(driver, silenceLimit: interval / 2) }
        #expect(outcome.served == SilentAttack.honest)
        #expect(outcome.longest < interval, "the longest wait was \(outcome.longest)")
    }

    @Test("I3.4: without the sweep 200 silent clients lock everybody out", arguments: DriverKind.permitted)
    func silentWithoutSweep(driver: DriverKind) throws {
        let outcome = try inTime { try SilentAttack.run(driver, silenceLimit: nil) }
        #expect(outcome.served == 0)
    }

    @Test(
        "I3.11: after a pause that is longer than the limit the keeper looks first, and ends nobody who has spoken",
        arguments: DriverKind.permitted)
    func pause(driver: DriverKind) throws {
        try inTime {
            var choices = CompletionPort.Options()
            choices.driver = driver
            let port = try CompletionPort(concurrency: 1, options: choices)
            let listener = try Socket.listener(on: .loopback())
            try port.associate(listener, key: 0)
            var options = AcceptPool.Options()
            options.silenceLimit = .milliseconds(50)
            // This thread makes the keeper's rounds.
            options.lookInterval = .seconds(3_600)
            let served = Counter()
            let pool = try AcceptPool(on: listener, options: options) { arrival in
                served.add()
                arrival.client.socket.close()
            }
            let callers = try Caller.several(4, to: try listener.localAddress)
            try pool.start()
            #expect(
                eventually {
                    if case .timedOut = port.dequeue(timeout: .milliseconds(1)) {}
                    return pool.counters.held == 4
                })
            // From here on no worker asks the port: the program is stopped. Three clients speak meanwhile.
            for caller in callers.dropLast() { try caller.say("hello") }
            usleep(60_000)
            let now = monotonicNanoseconds()
            let hour: UInt64 = 3_600_000_000_000
            pool.sweep(after: now, at: now + 2 * hour)
            #expect(pool.counters.swept == 0, "a round that is far too late has judged")
            let workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
            #expect(eventually { served.value == 3 })
            pool.sweep(after: now + 2 * hour, at: now + 3 * hour)
            #expect(eventually { pool.counters.swept == 1 }, "the fourth has said nothing")
            pool.stop()
            workers.stop()
            withExtendedLifetime(callers) {}
        }
    }

    @Test(
        "I3.9: each pause is twice as long as the last, up to the longest; a client who gets in makes it short again",
        arguments: DriverKind.permitted)
    func backOff(driver: DriverKind) throws {
        try inTime {
            var choices = CompletionPort.Options()
            choices.driver = driver
            let port = try CompletionPort(concurrency: 1, options: choices)
            let listener = try Socket.listener(on: .loopback())
            try port.associate(listener, key: 0)
            var options = AcceptPool.Options()
            options.initial = 4
            options.receiveLength = 0
            options.backOff = .milliseconds(30)
            options.longestBackOff = .milliseconds(200)
            let pool = try AcceptPool(on: listener, options: options) { $0.client.socket.close() }
            // Sockets that have a connection: each post with one of them is refused.
            let used = try Pair.several(4)
            for pair in used { pool.reuse(pair.server) }
            let workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
            let start = monotonicNanoseconds()
            try pool.start()
            #expect(eventually { pool.counters.pending == 4 })
            let taken = monotonicNanoseconds() - start
            #expect(pool.counters.refusedPosts == 4 && pool.counters.pauses >= 1)
            // The fourth refusal pauses for the longest, and so does each of the three who follow one by one.
            #expect(taken > 700_000_000, "four refusals were tried again after \(taken / 1_000_000) ms")
            #expect(pool.nextPause == .milliseconds(200))
            let caller = try Caller(to: listener.localAddress)
            #expect(caller.isEnded())
            #expect(pool.nextPause == .milliseconds(30))
            pool.stop()
            workers.stop()
            withExtendedLifetime(used) {}
        }
    }

    @Test("I3.10: the next client gets the socket of one who has left", arguments: DriverKind.permitted)
    func reuse(driver: DriverKind) throws {
        try inTime {
            var options = PrepostedServer.Options()
            options.port.driver = driver
            let server = try PrepostedServer(options: options)
            for _ in 0..<50 {
                let caller = try Caller(to: server.address)
                #expect(try caller.isAnswered("hello"))
                caller.socket.close()
            }
            #expect(eventually { server.accepts.reused == 50 })
            // All but those that are in a posted accept again.
            #expect(server.accepts.fresh <= 50 && server.counters.failed == 0)
            server.stop()
        }
    }

    @Test("I3.8: a stop at any moment of a burst leaves no descriptor and no thread", arguments: words)
    func stops(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                try ManyClients.stopUnderLoad(DriverKind(rawValue: driver)!)
            }
        }
    }

    @Test("I3.5: both addresses and the first data come with the client", arguments: DriverKind.permitted)
    func arrivals(driver: DriverKind) throws {
        try inTime {
            var options = CompletionPort.Options()
            options.driver = driver
            for address in Address.loopbacks {
                let port = try CompletionPort(concurrency: 1, options: options)
                let listener = try Socket.listener(on: address)
                let server = try listener.localAddress
                try port.associate(listener, key: 7)
                let seen = Seen()
                let pool = try AcceptPool(on: listener) { seen.put($0) }
                let workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
                try pool.start()
                let caller = try Caller(to: server)
                try caller.say("first words")
                #expect(seen.came.pass())
                #expect(seen.words == "first words" && seen.local == server)
                let own = try caller.socket.localAddress
                #expect(seen.remote == own && seen.peer == own)
                pool.stop()
                workers.stop()
            }
        }
    }

    @Test("I3.5: the server echoes all of a long first word", arguments: DriverKind.permitted)
    func longFirstData(driver: DriverKind) throws {
        try inTime {
            var options = PrepostedServer.Options()
            options.port.driver = driver
            options.pool.receiveLength = 4_096
            let server = try PrepostedServer(options: options)
            #expect(try Caller(to: server.address).isAnswered(String(repeating: "hello", count: 600)))
            server.stop()
        }
    }

    @Test("I3.8: a client whom a stop has closed is not one who left", arguments: DriverKind.permitted)
    func closedByStop(driver: DriverKind) throws {
        try inTime {
            var options = CompletionPort.Options()
            options.driver = driver
            let port = try CompletionPort(concurrency: 1, options: options)
            let listener = try Socket.listener(on: .loopback())
            let server = try listener.localAddress
            try port.associate(listener, key: 0)
            var limits = AcceptPool.Options()
            limits.receiveLength = 0
            let (isBusy, mayGoOn) = (Gate(), Gate())
            let pool = try AcceptPool(on: listener, options: limits) { arrival in
                isBusy.open()
                mayGoOn.pass()
                arrival.client.socket.close()
            }
            let workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
            let callers = try Caller.several(2, to: server)
            try pool.start()
            #expect(isBusy.pass())
            let stopping = startThread("stops") { pool.stop() }
            // The listener is closed after the pool knows that it stops.
            #expect(eventually { (try? Caller(to: server)) == nil })
            mayGoOn.open()
            stopping.join()
            workers.stop()
            #expect(callers[1].isEnded())
            #expect(pool.counters.accepted == 1 && pool.counters.empty == 0, "\(pool.counters)")
        }
    }

    @Test("limits that contradict each other are refused")
    func limits() throws {
        let listener = try Socket.listener(on: .loopback())
        for change in [
            { (options: inout AcceptPool.Options) in options.initial = 0 },
            { $0.maximum = $0.initial - 1 }, { $0.lowWater = $0.initial }, { $0.receiveLength = -1 },
            { $0.lookInterval = .zero },
        ] {
            var options = AcceptPool.Options()
            change(&options)
            #expect(throws: SystemError.self) { try AcceptPool(on: listener, options: options) { _ in } }
        }
    }

    @Test("I3.7: only an accepted socket can be told about its listener, and only about its own")
    func context() throws {
        let (own, other) = (try Socket.listener(on: .loopback()), try Socket.listener(on: .loopback()))
        var fresh = AcceptedSocket(Socket())
        #expect(throws: SystemError(ENOTCONN, attempted: "")) { try fresh.updateContext(from: own) }
        try own.setBlocking(true)
        let accept = Overlapped()
        let socket = Socket()
        let block = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Acceptance.blockSize(0), alignment: 16)
        defer { block.deallocate() }
        try own.accept(accept, socket, into: block, receiveLength: 0)
        let caller = try Caller(to: own.localAddress)
        #expect(eventually { !accept.isPending })
        var client = AcceptedSocket(socket)
        #expect(throws: SystemError(ENOTCONN, attempted: "")) { try client.remoteAddress }
        #expect(throws: SystemError(ENOTCONN, attempted: "")) { try client.localAddress }
        #expect(throws: SystemError(EINVAL, attempted: "")) { try client.updateContext(from: other) }
        try client.updateContext(from: own)
        #expect(try client.remoteAddress == caller.socket.localAddress)
        #expect(try client.localAddress == own.localAddress)
    }

    /// The first arrival.
    private final class Seen: @unchecked Sendable {
        let came = Gate()
        // Written before the gate opens, read after.
        private(set) var words = ""
        private(set) var local: Address?
        private(set) var remote: Address?
        private(set) var peer: Address?

        func put(_ arrival: Arrival) {
            words = String(decoding: arrival.firstData, as: UTF8.self)
            (local, remote, peer) = (arrival.local, arrival.remote, try? arrival.client.remoteAddress)
            arrival.client.socket.close()
            came.open()
        }
    }
}

/// 200 clients that say nothing, and honest ones who come after them.
enum SilentAttack {
    static let silent = 200
    static let honest = 20

    static func run(_ driver: DriverKind, silenceLimit: Duration?) throws -> (served: Int, longest: Duration)
    {
        var options = PrepostedServer.Options()
        options.port.driver = driver
        options.pool.maximum = silent
        options.pool.silenceLimit = silenceLimit
        options.pool.lookInterval = .seconds(1)
        let server = try PrepostedServer(options: options)
        let attackers = try Caller.several(silent, to: server.address)
        _ = eventually { server.accepts.pending == silent }
        let start = monotonicNanoseconds()
        let callers = try Caller.several(honest, to: server.address)
        for caller in callers { try caller.say("please") }
        var served = 0
        var patience = Duration.seconds(2)
        for caller in callers {
            guard try caller.hear(6, within: patience) == "please" else {
                patience = .milliseconds(1)
                continue
            }
            served += 1
        }
        let longest = Duration.nanoseconds(monotonicNanoseconds() - start)
        for caller in attackers + callers { caller.socket.close() }
        server.stop()
        return (served, longest)
    }
}
