import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: each client that comes gets a receive with a buffer, and the buffer's page stays locked until this
/// client says something.
final class BrokenReceiver {
    let budget: PageBudget
    private let slab: PageSlab
    private let port: CompletionPort
    private(set) var posted = 0

    init(_ driver: DriverKind, budget pages: Int, clients: Int) throws(SystemError) {
        budget = PageBudget(pages: pages)
        slab = try PageSlab(bufferSize: Page.size, capacity: clients)
        port = try CompletionPort.on(driver)
    }

    func admit(_ socket: Socket) throws(SystemError) {
        guard let buffer = slab.take() else { throw SystemError(ENOBUFS, attempted: "take a buffer") }
        let reading = Reading(into: buffer)
        try port.associate(socket, key: 1)
        try budget.charge(UnsafeRawBufferPointer(buffer), to: reading)
        try socket.receive(reading, into: buffer)
        posted += 1
    }

    /// Counts the clients that are heard. The memory stays the slab's until all of them have been.
    func heard() -> Int {
        var heard = 0
        while heard < posted, let packet = try? port.next() {
            if let reading = packet.operation as? Reading { budget.refund(reading) }
            heard += 1
        }
        port.close()
        return heard
    }
}

/// Every pending receive locks its pages, and with many connections there are none left.
public enum LockedMemoryExhausted {
    private static let clients = 100
    private static let budget = 64

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "locked-memory-exhausted",
        title: "every pending receive locks its buffer, and with many clients posting fails: no buffer space",
        broken: { driver in
            let receiver = try BrokenReceiver(driver, budget: budget, clients: clients)
            var pairs: [Pair] = []
            var failure: SystemError?
            for _ in 0..<clients {
                let pair = try Pair()
                pairs.append(pair)
                do throws(SystemError) {
                    try receiver.admit(pair.server)
                } catch {
                    failure = failure ?? error
                }
            }
            let locked = receiver.budget.counters.locked
            for pair in pairs { try pair.client.say("hello") }
            let heard = receiver.heard()
            return Observation(
                happened: receiver.posted == budget && failure?.code == ENOBUFS && heard == budget,
                lines: [
                    "\(clients) clients that say nothing, a page for each, a budget of \(budget) pages",
                    "receives posted: \(receiver.posted); the next one: "
                        + "\(failure.map { SystemError.text($0.code) } ?? "posted, too")",
                    "pages locked: \(locked)",
                    "all of them speak; heard: \(heard) of \(clients)",
                ])
        },
        fixed: { driver in
            let server = try BudgetedServer.on(driver, .zeroByte, budget: budget)
            let all = try server.clients(clients)
            let idle = server.pages
            let buffers = server.receives.slab.counters.inUse
            let answered = all.count { $0.isAnswered() }
            let peak = server.pages.peak
            let isClean = server.stop()
            return Observation(
                happened: idle.locked != 0 || peak != 0 || buffers != 0 || answered != clients
                    || !isClean,
                lines: [
                    "\(clients) clients that say nothing; pages locked: \(idle.locked), buffers in use: \(buffers)",
                    "all of them speak, one after the other; answered: \(answered) of \(clients); "
                        + "most pages locked at a time: \(peak)",
                ])
        })
}
