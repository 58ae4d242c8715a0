import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

extension CompletionPort {
    /// A port on one driver.
    static func on(_ driver: DriverKind, concurrency: Int = 2) throws(SystemError) -> CompletionPort {
        var options = Options()
        options.driver = driver
        return try CompletionPort(concurrency: concurrency, options: options)
    }

    /// The next packet, whether it tells of a success or a failure; an error if there is none in bounded time.
    func next(within patience: Duration = Gate.patience) throws(SystemError) -> Packet {
        switch dequeue(timeout: patience) {
        case .completed(let packet), .failed(let packet, _): return packet
        case .timedOut: throw SystemError(ETIMEDOUT, attempted: "wait for a packet")
        case .closed: throw SystemError.closed("wait for a packet")
        }
    }
}

/// A port with the chapter's table, served by the calling thread: packet by packet, so that a scenario says when each
/// is handled.
final class Stand: Sendable {
    let port: CompletionPort
    let table: ConnectionTable
    let ends: Guarded<[CloseReason]>

    init(_ driver: DriverKind, maximumFreeContexts: Int = 64) throws(SystemError) {
        port = try CompletionPort.on(driver)
        let ends = Guarded<[CloseReason]>([])
        self.ends = ends
        table = ConnectionTable(port: port, maximumFreeContexts: maximumFreeContexts) { _, reason in
            ends.locked { $0.append(reason) }
        }
    }

    /// Handles one packet.
    func turn() throws(SystemError) {
        let packet = try port.next()
        table.handle(packet, packet.error)
    }

    /// Handles packets until `isEnough`, for a bounded time; says whether it came to that.
    func turns(within patience: Duration = Gate.patience, until isEnough: () -> Bool) -> Bool {
        let deadline = Deadline.after(patience)
        while !isEnough() {
            if deadline.hasPassed { return false }
            switch port.dequeue(timeout: .milliseconds(20)) {
            case .completed(let packet): table.handle(packet, nil)
            case .failed(let packet, let error): table.handle(packet, error)
            case .timedOut: continue
            case .closed: return isEnough()
            }
        }
        return true
    }

    /// A clock whose rounds look for peers that answer nothing.
    func lookForPeers(unanswered limit: Duration) throws(SystemError) -> PeriodicTask {
        let (table, peers) = (table, Guarded(UnansweredPeers(limit: limit)))
        return try PeriodicTask("limits", every: limit / 8) { now in
            peers.locked { table.tick(now: now, &$0) }
        }
    }

    /// Closes every connection and handles what comes of it; says whether nothing is pending any more, and every end
    /// has been announced once.
    func finish() -> Bool {
        for connection in table.registry.snapshot() { connection.close() }
        let isThrough = turns { table.contexts.counters.inUse == 0 }
        port.close()
        let ledger = table.counters
        return isThrough && ledger.announced == ledger.opened && ends.locked { $0.count } == ledger.opened
    }
}

/// Clients that are connected and wait to be accepted: the next accept gives the lowest number that is free, as in any
/// server.
struct WaitingClients {
    private let listener: Socket
    private var clients: [Socket] = []

    init(_ count: Int = 16) throws(SystemError) {
        listener = try Socket.listener(on: .loopback())
        try listener.setBlocking(true)
        let address = try listener.localAddress
        for _ in 0..<count { clients.append(try Socket.connected(to: address)) }
    }

    /// Accepts until a connection has got that number. Returns both its ends, and those that were accepted before it.
    mutating func accept(number: Int32) throws(SystemError) -> (
        server: Socket, client: Socket, others: [Socket]
    ) {
        var others: [Socket] = []
        while !clients.isEmpty, let server = try listener.acceptNow() {
            let client = clients.removeFirst()
            if server.descriptor == number { return (server, client, others) }
            // Kept open, so that its number is taken.
            others += [server, client]
        }
        throw SystemError(EAGAIN, attempted: "get descriptor \(number) again")
    }
}

/// A receive that has completed, and whose packet is still in the queue: too late to cancel it.
struct CompletedInQueue {
    let port: CompletionPort
    let pair: Pair
    let request: Request

    init(_ driver: DriverKind, _ words: String) throws(SystemError) {
        // Whoever asks the system is mostly told of both at once, and takes one. If not, once more.
        for _ in 1...50 {
            let port = try CompletionPort.on(driver)
            let (pairs, requests) = ([try Pair(), try Pair()], [Request(), Request()])
            for (key, pair) in pairs.enumerated() {
                try port.associate(pair.server, key: UInt(key))
                try pair.client.say(words)
            }
            for (pair, request) in zip(pairs, requests) {
                try pair.server.receive(request, into: request.memory)
            }
            let other = try port.next().key == 0 ? 1 : 0
            if !requests[other].isPending {
                (self.port, pair, request) = (port, pairs[other], requests[other])
                return
            }
            port.close()
        }
        throw SystemError(EAGAIN, attempted: "complete two at once")
    }
}

/// Scenarios that end in a crash run in a process of their own: the chapter's program, told which.
public enum CrashChild {
    static let argument = "--crash-child"
    /// What the child says last before the touch that ends it.
    static let lastWords = "now it is touched once more"

    /// If this process was started as such a child: runs the scenario, and ends. To be called first in the program.
    public static func runIfAsked() {
        let words = CommandLine.arguments
        guard words.count == 4, words[1] == argument, let driver = DriverKind(rawValue: words[2]),
            let clients = Int(words[3])
        else { return }
        do {
            try FreedWithIOPending.crash(driver, clients: clients)
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }

    /// Runs the scenario in a child and says how that ended.
    public static func run(_ driver: DriverKind, clients: Int) throws -> Child.Ending {
        guard let program = Child.product("04-contexts") else {
            throw SystemError(ENOENT, attempted: "find the program 04-contexts beside this one")
        }
        return try Child.run(
            program, [argument, driver.rawValue, "\(clients)"],
            environment: ["SWIFT_BACKTRACE": "enable=no"], within: .seconds(20))
    }

    /// Whether it died of the touch, and not of anything else. A sanitizer turns the signal into a status of its own.
    public static func diedOfTouch(_ ending: Child.Ending) -> Bool {
        !ending.timedOut && ending.status != 0 && ending.output.contains(lastWords)
    }
}

/// A server that a test can stop as a whole: the chapter's program, told so, with a short limit for silence.
public enum StoppableServer {
    static let argument = "--stoppable-server"
    /// How long a client may be silent.
    public static let idleLimit = Duration.seconds(2)
    private static let announcement = "listening on port "

    /// If this process was started as such a child: serves until it is killed, and not for ever.
    public static func runIfAsked() {
        let words = CommandLine.arguments
        guard words.count == 3, words[1] == argument, let driver = DriverKind(rawValue: words[2]) else {
            return
        }
        do {
            var options = ContextServer.Options()
            options.port.driver = driver
            options.idleLimit = idleLimit
            let server = try ContextServer(options: options)
            print("\(announcement)\(server.address.port)")
            fflush(nil)
            sleep(120)
            server.stop()
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }

    /// Starts one in a process of its own; says where it listens.
    public static func start(_ driver: DriverKind) throws -> (Child, Address) {
        guard let program = Child.product("04-contexts") else {
            throw SystemError(ENOENT, attempted: "find the program 04-contexts beside this one")
        }
        let child = try Child(program, [argument, driver.rawValue])
        guard let line = child.line(startingWith: announcement, within: .seconds(20)),
            let port = UInt16(line.dropFirst(announcement.count))
        else { throw SystemError(ETIMEDOUT, attempted: "wait until the child listens") }
        return (child, .loopback(port: port))
    }
}
