import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: a post that finds no budget ends the connection, or is forgotten.
final class BrokenPoster {
    let budget: PageBudget
    private let slab: PageSlab
    private let port: CompletionPort
    private let forgets: Bool
    private var readings: [Reading] = []
    private(set) var refused = 0

    init(_ driver: DriverKind, budget pages: Int, forgets: Bool) throws(SystemError) {
        budget = PageBudget(pages: pages)
        slab = try PageSlab(bufferSize: Page.size, capacity: 16)
        port = try CompletionPort.on(driver)
        self.forgets = forgets
    }

    func admit(_ socket: Socket) throws(SystemError) {
        try port.associate(socket, key: 1)
        let reading = Reading(into: slab.take()!)
        readings.append(reading)
        do throws(SystemError) {
            try budget.charge(UnsafeRawBufferPointer(reading.memory), to: reading)
            try socket.receive(reading, into: reading.memory)
        } catch {
            refused += 1
            // It is not this client's fault. And who would ever post again?
            if !forgets { socket.close() }
        }
    }

    /// Takes so many packets, and gives their pages back; says how many came in time.
    func work(_ count: Int, within patience: Duration = Gate.patience) -> Int {
        var packets = 0
        while packets < count, let packet = try? port.next(within: patience) {
            if let reading = packet.operation as? Reading { budget.refund(reading) }
            packets += 1
        }
        return packets
    }

    func end() { port.close() }
}

/// A post that fails for lack of buffers closes an innocent client, or stops its reading for ever.
public enum ENOBUFSKillsConnection {
    private static let budget = 4
    private static let clients = 6

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "enobufs-kills-connection",
        title: "for want of buffers an innocent client is closed, or is never read again",
        broken: { driver in
            let (closed, _) = try run(driver, forgets: false)
            let (_, silent) = try run(driver, forgets: true)
            return Observation(
                happened: closed == clients - budget && silent == clients - budget,
                lines: [
                    "\(clients) clients, a budget of \(budget) pages",
                    "a failed post closes its connection: \(closed) innocent clients lose theirs",
                    "a failed post is forgotten: the first \(budget) leave, every page is back, "
                        + "and \(silent) clients are still not heard",
                ])
        },
        fixed: { driver in
            let server = try BudgetedServer.on(driver, .buffered, budget: budget)
            let all = try server.clients(clients)
            _ = eventually { server.pages.waiting == clients - budget }
            let start = server.pages
            // The last two speak before there is budget for their receives.
            try all[4].say("five")
            try all[5].say("six")
            let isEarly = server.hub.counters.reads.reads > 0
            all[0].close()
            let five = try all[4].hear(4)
            // The first in the line, and then the second: a client that has been heard goes to its end.
            let six = try all[5].hear(3)
            let others = all[1...3].count { $0.isAnswered() }
            let ends = server.hub.counters.reasons
            let isClean = server.stop()
            return Observation(
                happened: start.locked != budget || start.waiting != clients - budget || isEarly
                    || five != "five" || six != "six" || others != 3 || ends != [.ended: 1] || !isClean,
                lines: [
                    "\(clients) clients, a budget of \(budget) pages: \(start.locked) pages locked, "
                        + "\(start.waiting) clients in the line",
                    "one client leaves; the two in the line are heard: \(five), \(six)",
                    "connections ended: \(ends.values.reduce(0, +)), the one that left",
                ])
        })

    /// Returns how many clients were closed at once, and how many were not heard although all pages were back.
    private static func run(_ driver: DriverKind, forgets: Bool) throws -> (closed: Int, silent: Int) {
        let poster = try BrokenPoster(driver, budget: budget, forgets: forgets)
        var pairs: [Pair] = []
        for _ in 0..<clients {
            let pair = try Pair()
            pairs.append(pair)
            try poster.admit(pair.server)
        }
        let closed = pairs.suffix(clients - budget).count { $0.client.isEnded(within: .milliseconds(100)) }
        for pair in pairs.prefix(budget) { pair.client.close() }
        _ = poster.work(budget)
        let isBack = poster.budget.counters.locked == 0
        var heard = 0
        for pair in pairs.suffix(clients - budget) where (try? pair.client.say("hello")) != nil {
            heard += poster.work(1, within: .milliseconds(100))
        }
        poster.end()
        return (closed, isBack ? clients - budget - heard : 0)
    }
}
