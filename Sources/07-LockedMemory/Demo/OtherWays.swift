import Glibc
import Kernel
import LockedMemory
import Reordering
import Stage

/// A policy of chapter 05 that is not this chapter's: connections wait with zero bytes, and when there is something to be
/// read, several reads with buffers are posted. Those that find nothing stay pending, with their pages.
final class ReadsAfterWait: ReceivePolicy {
    static let name = "reads-after-wait"
    let budget: PageBudget
    private let choice: BudgetedReceives
    private let reads: Int

    init(reads: Int, connections: Int) throws(SystemError) {
        self.reads = reads
        budget = PageBudget(pages: reads * connections)
        choice = BudgetedReceives(
            .mixed(reads: reads), budget: budget,
            slab: try PageSlab(bufferSize: Page.size, capacity: reads * connections))
    }

    func plan(_ slot: Chunk, _ need: ReceiveNeed) -> ReceivePlan {
        if need.posted == 0, !need.isReadable {
            choice.release(slot)
            return .wait
        }
        // The posted reads take what is there: nothing is read at once.
        if need.posted < reads {
            return choice.plan(slot, ReceiveNeed(posted: need.posted, isReadable: false))
        }
        choice.release(slot)
        return .enough
    }

    func release(_ slot: Chunk) { choice.release(slot) }
}

private let clients = 100
private let words = 9

/// Two other ways to use receives without a buffer, beside the chapter's: what silent clients lock after they have spoken.
func showOtherWays(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Other ways: \(clients) clients say \(words) words each, and then nothing")
    var rows: [[String]] = []
    var locked: [Int] = []
    for (name, reads, mode, pagesEach) in [
        ("wait, then read at once", 1, "zero-byte", 0),
        ("wait, then post 3 reads", 3, ReadsAfterWait.name, 3),
        ("post 2 reads, and wait", 3, "mixed", 2),
    ] {
        var choices = serverOptions(mode: mode, driver: options.driver)
        choices.hub.pendingReads = reads
        if mode == "mixed" { choices.choice = .mixed(reads: reads - 1) }
        let (pages, counters) = try speak(choices, mode, pagesEach * clients)
        locked.append(pages)
        let all = Double(counters.reads + counters.waits) / Double(clients * words)
        rows.append([
            name, readable(pages), readable(counters.waits), readable(counters.reads), "\(hundredths(all))",
        ])
    }
    terminal.table(["way", "pages locked", "waits", "reads", "packets a word"], rows)
    terminal.say()
    terminal.claim(
        "what was posted and found nothing keeps its pages: 0, 3 and 2 for each silent client",
        holds: locked == [0, 3 * clients, 2 * clients])
}

/// Pages that are locked when all are silent again.
private func speak(_ choices: BudgetedServer.Options, _ mode: String, _ expected: Int) throws -> (
    Int, ReadCounters
) {
    if mode != ReadsAfterWait.name {
        let server = try BudgetedServer(options: choices)
        defer { server.stop() }
        return try speak(to: server.address, server.hub, server.receives.budget, expected)
    }
    let receives = try ReadsAfterWait(reads: choices.hub.pendingReads, connections: clients)
    var options = choices.hub
    options.receives = receives
    let hub = try StreamHub(options)
    defer { hub.stop() }
    return try speak(to: try hub.listen { _ in Echo() }, hub, receives.budget, expected)
}

private func speak(to address: Address, _ hub: StreamHub, _ budget: PageBudget, _ expected: Int) throws -> (
    Int, ReadCounters
) {
    let sockets = try (0..<clients).map { _ in try Socket.connected(to: address) }
    for _ in 0..<words {
        for socket in sockets {
            let sends = hub.counters.traffic.sends
            try socket.say("word")
            guard try socket.hear(4) == "word" else {
                throw SystemError(EPROTO, attempted: "hear a word again")
            }
            // When the send is told, the connection waits again.
            _ = eventually { hub.counters.traffic.sends > sends }
        }
    }
    // The last worker is perhaps about to post.
    _ = eventually { budget.counters.locked == expected }
    let locked = budget.counters.locked
    withExtendedLifetime(sockets) {}
    return (locked, hub.counters.reads)
}

private func hundredths(_ value: Double) -> String {
    let all = Int((value * 100).rounded())
    return "\(all / 100).\(all % 100 < 10 ? "0" : "")\(all % 100)"
}
