import Contexts
import Glibc
import Kernel
import Reordering
import Servers
import Stage

/// Handlers are called while a lock is held.
public enum CallbackUnderLock {
    /// ⚠︎ Broken on purpose: a session's handler is called with the session's lock.
    final class BrokenSession: @unchecked Sendable {
        private let lock = Lock()
        private var isOver = false

        func handle(_ handler: () -> Void) { lock.locked { handler() } }
        func disconnect() { lock.locked { isOver = true } }
    }

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "callback-under-lock",
        title: "two handlers that end each other's session wait for each other, since each has a lock",
        broken: { _ in
            let sessions = [BrokenSession(), BrokenSession()]
            let both = Barrier(2)
            let returned = Counter()
            // The threads are left behind as they are.
            for number in 0..<2 {
                _ = startThread("worker \(number)") {
                    sessions[number].handle {
                        both.arrive()
                        sessions[1 - number].disconnect()
                        returned.add()
                    }
                }
            }
            let isOver = eventually(within: .seconds(1)) { returned.value > 0 }
            return Observation(happened: !isOver, lines: ["handlers that returned: \(returned.value) of 2"])
        },
        fixed: { driver in
            let sessions = Guarded<[Session]>([])
            let (both, returned) = (Barrier(2), Counter())
            let program = Program()
            program.onConnected = { session in sessions.locked { $0.append(session) } }
            program.onReceived = { _, session in
                both.arrive()
                sessions.locked { $0 }.first { $0.id != session.id }?.disconnect(.abortive)
                returned.add()
            }
            let server = try startServer(driver, program) {
                $0.endpoint.ioWorkers = 2
                $0.endpoint.concurrency = 2
            }
            let clients = try (0..<2).map { _ in try PlainClient(to: server.address!) }
            _ = eventually { server.connectionCount == 2 }
            for client in clients { try client.say("end the other one") }
            let haveReturned = eventually { returned.value == 2 }
            // A stop would wait for them, for ever.
            guard haveReturned else {
                return Observation(happened: true, lines: ["handlers that returned: \(returned.value) of 2"])
            }
            let areOver = eventually { server.connectionCount == 0 }
            sessions.locked { $0 = [] }
            let last = try server.stop()
            return Observation(
                happened: !areOver || last.ends[.kicked] != 2,
                lines: [
                    "handlers that returned: 2 of 2; ends: \(last.ends.map { "\($0.key) \($0.value)" })"
                ])
        })
}

/// Clients leave, and are thrown out, at any moment.
public enum RandomDisconnects {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "random-disconnects",
        title:
            "who ends a session counts its end, and so does who hears of it at that moment: the accounts are wrong",
        broken: { driver in
            // The test that one writes: they come, talk, and leave in order.
            let polite = BrokenList()
            try polite.serve(driver) { server in
                for _ in 0..<20 {
                    let client = try PlainClient(to: server.address!)
                    _ = client.isEchoed()
                    try client.socket.shutDownSending()
                    _ = client.socket.isEnded()
                }
            }
            // Two ends at one moment: thrown out, and gone by itself. The gate makes of a rare moment this one.
            let both = Barrier(2)
            let random = BrokenList { both.arrive() }
            try random.serve(driver) { server in
                let client = try PlainClient(to: server.address!)
                _ = client.isEchoed()
                guard let session = server.sessions.first else { return }
                let thrower = startThread("throws out") { random.throwOut(session) }
                try client.socket.abort()
                thrower.join()
            }
            return Observation(
                happened: polite.count == 0 && random.count != 0,
                lines: [
                    "20 clients that leave in order: \(polite.count) are present",
                    "one that leaves at the moment at which it is thrown out: \(random.count) are present",
                ])
        },
        fixed: { driver in
            try leave(driver, clients: 1_000, seed: 7)
        })

    /// ⚠︎ Broken on purpose: whether a session is still there is looked at first, and counted afterwards.
    private final class BrokenList: Sendable {
        private let present = Guarded<(ids: Set<ConnectionID>, count: Int)>(([], 0))
        private let between: @Sendable () -> Void

        init(between: @escaping @Sendable () -> Void = {}) { self.between = between }

        var count: Int { present.locked { $0.count } }

        private func leaves(_ id: ConnectionID) {
            guard present.locked({ $0.ids.contains(id) }) else { return }
            between()
            present.locked {
                $0.ids.remove(id)
                $0.count -= 1
            }
        }

        func throwOut(_ session: Session) {
            leaves(session.id)
            session.disconnect(.abortive)
        }

        /// A server that keeps this list, while `body` lets clients come and go.
        func serve(_ driver: DriverKind, _ body: (Server) throws -> Void) throws {
            let program = Program.echo()
            program.onConnected = { [self] session in
                present.locked {
                    $0.ids.insert(session.id)
                    $0.count += 1
                }
            }
            program.onDisconnected = { [self] session, _ in leaves(session.id) }
            let server = try startServer(driver, program)
            try body(server)
            _ = eventually { server.connectionCount == 0 }
            try server.stop()
        }
    }

    /// So many clients leave in all the ways that there are, while the server ends sessions by chance.
    public static func leave(_ driver: DriverKind, clients count: Int, seed: UInt64) throws -> Observation {
        let program = Program()
        let (present, wrong) = (Counter(), Counter())
        program.onConnected = { _ in present.add() }
        program.onDisconnected = { session, _ in
            present.add(-1)
            if session.context as? Int == nil { wrong.add() }
        }
        program.onMade = { $0.context = 1 }
        let server = try startServer(driver, program) {
            $0.endpoint.limits.idle = .milliseconds(40)
            $0.endpoint.log = .none
        }
        program.onReceived = { message, session in try? session.reply(message.span.bytes) }
        let chance = try Chance(server, mean: .milliseconds(100), seed: seed)
        let mixed = Counter()
        inThreads(8) { thread in
            var random = seed &+ UInt64(thread)
            for number in 0..<(count / 8) {
                random = random &* 6_364_136_223_846_793_005 &+ 1
                guard let client = try? PlainClient(to: server.address!) else { continue }
                let word = "\(thread)-\(number)"
                switch (random >> 33) % 5 {
                case 0: client.socket.close()
                case 1: try? client.socket.abort()
                case 2:
                    try? client.say(word)
                    try? client.socket.abort()
                case 3:
                    try? client.say(word)
                    client.socket.close()
                default:
                    try? client.say(word)
                    if let heard = client.hear(within: .seconds(2)), heard != word { mixed.add() }
                    client.socket.close()
                }
            }
        }
        _ = eventually { server.statistics.connections == 0 }
        let last = try server.stop()
        chance.stop()
        let isReleased = eventually { program.released.value == program.made.value }
        return Observation(
            happened: present.value != 0 || mixed.value != 0 || wrong.value != 0 || !last.isQuiet
                || !isReleased,
            lines: [
                "\(last.accepted) came; made \(program.made.value), released \(program.released.value), present \(present.value)",
                "ends: \(last.ends.map { "\($0.key) \($0.value)" }.sorted().joined(separator: ", ")); mixed up: \(mixed.value)",
            ])
    }
}

/// Stop comes while packets are being handled.
public enum ShutdownUnderLoad {
    static let slug = "shutdown-under-load"

    /// For the demo and the tests. The broken half runs in a child process, which it kills.
    public static let pitfall = Pitfall(
        slug: slug, title: "stop gives memory back that a worker is just using",
        broken: { driver in try ownProcess.dies(slug, driver) },
        fixed: { driver in try stop(driver, moments: 20) })

    /// Stops so many servers, each while another of its messages is being handled: the first, the second and so on; in turn
    /// at once and with a grace. Threads and descriptors are the whole process's.
    public static func stop(_ driver: DriverKind, moments: Int) throws -> Observation {
        let before = (descriptors: Resources.openDescriptors, threads: Resources.threads)
        var (stopped, isQuiet) = (0, true)
        for moment in 1...moments {
            let (arrived, count) = (Gate(), Counter())
            let program = Program()
            program.onReceived = { message, session in
                if count.add() == moment { arrived.open() }
                try? session.reply(message.span.bytes)
            }
            let server = try startServer(driver, program)
            let clients = try (0..<4).map { _ in try PlainClient(to: server.address!) }
            let messages = [UInt8]((0..<(moment / 4 + 8)).flatMap { _ in PlainClient.frame([1, 2, 3]) })
            for client in clients { try client.socket.say(messages) }
            // Stop begins at the packet that is being handled.
            guard arrived.pass() else { continue }
            let last = try server.stop(within: moment % 2 == 0 ? .zero : .milliseconds(50))
            stopped += 1
            isQuiet = isQuiet && last.isQuiet && program.made.value == program.released.value
            for client in clients { try? client.socket.abort() }
        }
        let isBack = eventually {
            Resources.openDescriptors <= before.descriptors && Resources.threads <= before.threads
        }
        return Observation(
            happened: stopped != moments || !isQuiet || !isBack,
            lines: [
                "stopped at \(stopped) different messages; every buffer, page and session back: \(isQuiet)",
                "threads: \(before.threads) before, \(Resources.threads) after; descriptors: \(before.descriptors) before, "
                    + "\(Resources.openDescriptors) after",
            ])
    }
}

/// Stop waits for some time, and gives up.
public enum ShutdownGivesUpWaiting {
    static let slug = "shutdown-gives-up-waiting"

    /// For the demo and the tests. The broken half runs in a child process, which it kills.
    public static let pitfall = Pitfall(
        slug: slug, title: "stop waits for a worker for a while, and then frees what it uses",
        broken: { driver in try ownProcess.dies(slug, driver) },
        fixed: { driver in
            let (inside, go) = (Gate(), Gate())
            let program = Program()
            program.onReceived = { _, _ in
                inside.open()
                go.pass()
            }
            let server = try startServer(driver, program)
            defer { go.open() }
            let client = try PlainClient(to: server.address!)
            try client.say("this takes long")
            let isInside = inside.pass()
            let over = Counter()
            let stopper = startThread("stop") {
                _ = try? server.stop(within: .milliseconds(20))
                over.add()
            }
            // Its grace is over several times, and it complains.
            let hasComplained = eventually {
                program.lines.locked { $0 }.contains { $0.hasPrefix("stop waits for") }
            }
            let early = over.value
            go.open()
            stopper.join()
            return Observation(
                happened: !isInside || early != 0 || over.value != 1 || !hasComplained,
                lines: [
                    "while the handler is busy stop waits, and says so once a second: \(hasComplained)",
                    "it returns when the handler has",
                ])
        })
}

/// A server whose stop frees what its handler uses. The process does not survive that.
enum BrokenStop {
    /// ⚠︎ Broken on purpose: frees it at once, or when its patience is over.
    static func crash(_ driver: DriverKind, waiting patience: Duration?) throws {
        let (inside, go, over) = (Gate(), Gate(), Gate())
        let context = try GuardedMemory(64)
        let hub = try startHub(driver)
        let address = try hub.listen { _ in
            StreamProgram(received: { _, _ in
                inside.open()
                go.pass()
                context.bytes[0] &+= 1
            })
        }
        let client = try Socket.connected(to: address)
        try client.say("this takes long")
        inside.pass()
        let stopper = startThread("stop") {
            hub.stop()
            over.open()
        }
        if let patience { _ = over.pass(within: patience) }
        context.free()
        OwnProcess.say("stop has freed the context of a handler that is at a gate")
        OwnProcess.say(OwnProcess.lastWords)
        go.open()
        stopper.join()
    }
}

/// Scenarios that end in a crash.
public let ownProcess = OwnProcess(
    "11-server-and-client",
    [
        ShutdownUnderLoad.slug: { try BrokenStop.crash($0, waiting: nil) },
        ShutdownGivesUpWaiting.slug: { try BrokenStop.crash($0, waiting: .milliseconds(20)) },
    ])

/// Start on what runs, stop on what does not.
public enum StartTwice {
    /// ⚠︎ Broken on purpose: a flag that is read here and written there.
    final class BrokenServer: @unchecked Sendable {
        private var isStarted = false
        private let between: @Sendable () -> Void
        let listeners = Guarded<[Socket]>([])

        init(between: @escaping @Sendable () -> Void) { self.between = between }

        func start() throws {
            let isStartedAlready = unguarded.locked { isStarted }
            if isStartedAlready { return }
            between()
            let listener = try Socket.listener(on: .loopback())
            listeners.locked { $0.append(listener) }
            unguarded.locked { isStarted = true }
        }

        /// Guards each look and each write, and not the decision: as an unlocked flag, without the race that a sanitizer reports.
        private let unguarded = Lock()
    }

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "start-twice", title: "two threads start a server, and it listens twice",
        broken: { _ in
            let both = Barrier(2)
            let server = BrokenServer { both.arrive() }
            inThreads(2) { _ in try? server.start() }
            let count = server.listeners.locked { $0.count }
            return Observation(
                happened: count == 2, lines: ["listeners: \(count); the first one is nobody's"])
        },
        fixed: { driver in
            var options = ServerOptions()
            options.endpoint.port.driver = driver
            let server = Server(options, handler: Program.echo())
            let outcomes = Guarded<[String]>([])
            @Sendable func note(_ body: () throws(EndpointError) -> Void) {
                do throws(EndpointError) {
                    try body()
                    outcomes.locked { $0.append("ok") }
                } catch {
                    outcomes.locked {
                        $0.append(
                            "\(error == .alreadyStarted ? "already started" : error == .notStarted ? "not started" : "\(error)")"
                        )
                    }
                }
            }
            let all = Barrier(2)
            inThreads(2) { _ in
                all.arrive()
                note { () throws(EndpointError) in try server.start() }
            }
            let starts = outcomes.locked { $0 }.sorted()
            let isServed = try PlainClient(to: server.address!).isEchoed()
            outcomes.locked { $0 = [] }
            note { () throws(EndpointError) in _ = try server.stop() }
            note { () throws(EndpointError) in _ = try server.stop() }
            note { () throws(EndpointError) in try server.start() }
            note { () throws(EndpointError) in _ = try server.stop() }
            let rest = outcomes.locked { $0 }
            return Observation(
                happened: starts != ["already started", "ok"] || !isServed
                    || rest != ["ok", "not started", "ok", "ok"],
                lines: ["two starts: \(starts)", "stop, stop, start, stop: \(rest)"])
        })
}

/// The port is another program's, the address another machine's, or there is no descriptor left.
public enum PortAlreadyInUse {
    /// An address that is no machine's: it is kept for examples (RFC 5737).
    private static let foreign = Address("203.0.113.1", port: 4_711)!

    /// For the demo and the tests. Threads and descriptors are the whole process's: the tests run both halves in one of its own.
    public static let pitfall = Pitfall(
        slug: "port-already-in-use",
        title: "a start that fails leaves its threads and descriptors behind, and calls itself started",
        broken: { driver in
            let other = try Socket.listener(on: .loopback())
            var (lines, all) = ([String](), true)
            for address in [try other.localAddress, foreign] {
                let before = (threads: Resources.threads, descriptors: Resources.openDescriptors)
                // ⚠︎ Broken on purpose: nothing undoes what had been done when `listen` fails.
                var (isStarted, left) = (false, StreamHub?.none)
                do {
                    isStarted = true
                    left = try startHub(driver)
                    try left?.listen(on: address) { _ in StreamProgram() }
                } catch {}
                let threads = Resources.threads - before.threads
                let descriptors = Resources.openDescriptors - before.descriptors
                left?.stop()
                all = all && isStarted && threads > 0 && descriptors > 0
                lines.append(
                    "\(address == foreign ? address.description : "a port in use"): started: \(isStarted); left behind: "
                        + "\(threads) threads, \(descriptors) descriptors")
            }
            return Observation(happened: all, lines: lines)
        },
        fixed: { driver in
            let other = try Socket.listener(on: .loopback())
            let taken = try other.localAddress
            var (lines, holds) = ([String](), true)
            for (address, why) in [(taken, EADDRINUSE), (foreign, EADDRNOTAVAIL)] {
                let (words, code, isClean) = failure(of: server(driver, address))
                holds =
                    holds && code == why && isClean && words.contains("\(address)")
                    && !words.contains("\n")
                lines.append(words)
            }
            let (failures, isClean) = startWithFewDescriptors(server(driver, .loopback()))
            lines.append(
                "with too few descriptors, one more each time: \(failures) starts fail, and leave nothing: \(isClean)"
            )
            let own = server(driver, taken)
            let again = failure(of: own)
            other.close()
            try own.start()
            let isServed = try PlainClient(to: own.address!).isEchoed()
            try own.stop()
            lines.append("when the port is free the same server starts: \(isServed)")
            return Observation(
                happened: !holds || failures < 3 || !isClean || again.code != EADDRINUSE || !isServed,
                lines: lines)
        })

    private static func server(_ driver: DriverKind, _ address: Address) -> Server {
        var options = ServerOptions()
        options.addresses = [address]
        options.endpoint.port.driver = driver
        return Server(options, handler: Program.echo())
    }

    /// Starts what cannot be started: what is said, and whether all is as before.
    private static func failure(of server: Server) -> (words: String, code: Int32, isClean: Bool) {
        let before = (threads: Resources.threads, descriptors: Resources.openDescriptors)
        var (words, code) = ("it started", Int32(0))
        do throws(EndpointError) { try server.start() } catch {
            words = error.description
            if case .failed(let system) = error { code = system.code }
        }
        let isClean = eventually {
            Resources.threads <= before.threads && Resources.openDescriptors <= before.descriptors
        }
        return (words, code, isClean && !server.isStarted)
    }

    /// Each start has one descriptor more, until there are enough: so every step that takes one fails once.
    private static func startWithFewDescriptors(_ server: Server) -> (failures: Int, isClean: Bool) {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var usual = rlimit()
        getrlimit(resource, &usual)
        var (failures, isClean) = (0, true)
        for room in 0..<64 {
            // What looks at descriptors takes one itself; so it looks before and after.
            let before = (threads: Resources.threads, descriptors: Resources.openDescriptors)
            // The limit is for numbers. All below the lowest free one are taken, whatever is free above it.
            let lowest = dup(STDIN_FILENO)
            close(lowest)
            var few = rlimit(rlim_cur: UInt(max(0, Int(lowest) + room)), rlim_max: usual.rlim_max)
            setrlimit(resource, &few)
            var code: Int32 = 0
            do throws(EndpointError) { try server.start() } catch {
                if case .failed(let system) = error { code = system.code }
            }
            setrlimit(resource, &usual)
            if server.isStarted {
                _ = try? server.stop(within: .zero)
                return (failures, isClean)
            }
            failures += 1
            let isBack = eventually {
                Resources.threads <= before.threads && Resources.openDescriptors <= before.descriptors
            }
            isClean = isClean && code == EMFILE && isBack
        }
        return (failures, false)
    }
}
