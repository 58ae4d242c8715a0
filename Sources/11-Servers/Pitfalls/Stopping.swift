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
        title: "who ends a session counts its end, and so does who hears of it: the accounts are wrong",
        broken: { driver in
            // ⚠︎ Broken on purpose: the program's own list is kept up in two places.
            let present = Counter()
            let program = Program()
            program.onConnected = { _ in present.add() }
            program.onDisconnected = { _, _ in present.add(-1) }
            let server = try startServer(driver, program)
            let clients = try (0..<8).map { _ in try PlainClient(to: server.address!) }
            _ = eventually { present.value == 8 }
            for session in server.sessions.prefix(4) {
                session.disconnect(.abortive)
                present.add(-1)
            }
            for client in clients { client.socket.close() }
            _ = eventually { server.connectionCount == 0 }
            let left = present.value
            try server.stop()
            return Observation(happened: left != 0, lines: ["8 came, all have left, and \(left) are present"])
        },
        fixed: { driver in
            try leave(driver, clients: 200, seed: 7)
        })

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
            $0.endpoint.randomDisconnect = (.milliseconds(100), seed)
            $0.endpoint.limits.idle = .milliseconds(40)
            $0.endpoint.log = .none
        }
        program.onReceived = { message, session in try? session.reply(message.span.bytes) }
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
        fixed: { driver in
            var (stopped, isQuiet, heard) = (0, true, 0)
            for moment in 1...20 {
                let (arrived, count) = (Gate(), Counter())
                let program = Program()
                program.onReceived = { message, session in
                    if count.add() == moment { arrived.open() }
                    try? session.reply(message.span.bytes)
                }
                let server = try startServer(driver, program)
                let clients = try (0..<4).map { _ in try PlainClient(to: server.address!) }
                for client in clients {
                    try client.socket.say((0..<8).flatMap { _ in PlainClient.frame([1, 2, 3]) })
                }
                // Stop begins at the packet that is being handled.
                guard arrived.pass() else { continue }
                let last = try server.stop(within: moment % 2 == 0 ? .zero : .milliseconds(50))
                stopped += 1
                isQuiet = isQuiet && last.isQuiet && program.made.value == program.released.value
                heard += count.value
            }
            return Observation(
                happened: stopped != 20 || !isQuiet,
                lines: ["stopped at 20 different messages; every buffer, page and session back: \(isQuiet)"])
        })
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

/// The port is another program's.
public enum PortAlreadyInUse {
    /// For the demo and the tests. Threads are the whole process's: the tests run the broken half in one of its own.
    public static let pitfall = Pitfall(
        slug: "port-already-in-use",
        title: "a start that fails leaves its threads behind, and calls itself started",
        broken: { driver in
            let other = try Socket.listener(on: .loopback())
            let before = Resources.threads
            var isStarted = false
            // ⚠︎ Broken on purpose: nothing undoes what had been done when `listen` fails.
            var left: StreamHub?
            do {
                isStarted = true
                left = try startHub(driver)
                try left?.listen(on: other.localAddress) { _ in StreamProgram() }
            } catch {}
            let threads = Resources.threads - before
            left?.stop()
            return Observation(
                happened: isStarted && threads > 0,
                lines: ["started: \(isStarted); threads left behind: \(threads)"])
        },
        fixed: { driver in
            let other = try Socket.listener(on: .loopback())
            var options = ServerOptions()
            options.addresses = [try other.localAddress]
            options.endpoint.port.driver = driver
            let server = Server(options, handler: Program.echo())
            var words = ""
            do throws(EndpointError) { try server.start() } catch { words = error.description }
            let isStarted = server.isStarted
            other.close()
            try server.start()
            let isServed = try PlainClient(to: server.address!).isEchoed()
            try server.stop()
            return Observation(
                happened: isStarted || !words.contains("\(options.addresses[0])") || !isServed,
                lines: [words, "nothing is left of it; when the port is free it starts: \(isServed)"])
        })
}
