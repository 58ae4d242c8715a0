import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: a packet gives its pages back, and the answer asks for pages like every other post.
final class BrokenStrictAccount {
    let budget: PageBudget
    private let slab: PageSlab
    private let port: CompletionPort
    private var readings: [Reading] = []
    private(set) var answers = 0

    init(_ driver: DriverKind, budget pages: Int) throws(SystemError) {
        budget = PageBudget(pages: pages)
        slab = try PageSlab(bufferSize: Page.size, capacity: 16)
        port = try CompletionPort.on(driver)
    }

    func admit(_ socket: Socket) throws(SystemError) {
        try port.associate(socket, key: UInt(readings.count))
        let reading = Reading(into: slab.take()!)
        readings.append(reading)
        if try budget.chargeOrWait(UnsafeRawBufferPointer(reading.memory), to: reading) {
            try socket.receive(reading, into: reading.memory)
        }
    }

    /// Handles one packet of a receive; says whether the answer could be posted.
    func answer(on sockets: [Socket]) throws(SystemError) -> Bool {
        let packet = try port.next()
        let (reading, socket) = (readings[Int(packet.key)], sockets[Int(packet.key)])
        // The page goes to the first in the line: another idle client's receive.
        budget.refund(reading)
        budget.serve()
        for (other, waiting) in readings.enumerated() where waiting.hasCome {
            try sockets[other].receive(waiting, into: waiting.memory)
        }
        let bytes = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(reading.memory)[..<packet.bytes])
        guard try budget.chargeOrWait(bytes, to: reading) else { return false }
        _ = try socket.sendNow(bytes)
        return true
    }

    func end(_ sockets: [Socket]) {
        for socket in sockets { socket.close() }
        while (try? port.next(within: .milliseconds(20))) != nil {}
        port.close()
    }
}

/// An answer waits for the pages of clients that say nothing.
public enum AnswerWaitsForIdle {
    private static let budget = 4
    private static let clients = 5

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "answer-waits-for-idle",
        title: "an answer waits in line behind receives of clients that say nothing, and the server hangs",
        broken: { driver in
            let server = try BrokenStrictAccount(driver, budget: budget)
            var pairs: [Pair] = []
            for _ in 0..<clients {
                let pair = try Pair()
                pairs.append(pair)
                try server.admit(pair.server)
            }
            try pairs[0].client.say("hello")
            let isPosted = try server.answer(on: pairs.map(\.server))
            let heard = try pairs[0].client.hear(5, within: .milliseconds(100))
            let counters = server.budget.counters
            server.end(pairs.map(\.server))
            return Observation(
                happened: !isPosted && heard.isEmpty && counters.locked == budget && counters.waiting == 1,
                lines: [
                    "\(clients) clients, a budget of \(budget) pages; the first one says hello",
                    "its page goes to the client in the line, which says nothing",
                    "the answer waits: \(counters.locked) pages locked by idle clients, "
                        + "\(counters.waiting) in the line; heard: \(heard.isEmpty ? "nothing" : heard)",
                ])
        },
        fixed: { driver in
            let server = try BudgetedServer.on(driver, .buffered, budget: budget)
            let all = try server.clients(clients)
            _ = eventually { server.pages.waiting == clients - budget }
            let isAnswered = all[0].isAnswered()
            // Now the last one has the page, and the first one is in the line.
            let isNextAnswered = all[4].isAnswered()
            let isClean = server.stop()
            return Observation(
                happened: !isAnswered || !isNextAnswered || !isClean,
                lines: [
                    "the first one says hello, and is \(isAnswered ? "answered under the charge of its receive" : "not answered")",
                    "then the page goes to the client in the line; it says hello: "
                        + (isNextAnswered ? "answered" : "no answer"),
                ])
        })
}
