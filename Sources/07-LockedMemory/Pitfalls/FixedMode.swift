import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: one mode for all loads, chosen when the program was written.
struct BrokenFixedMode {
    let choice: BudgetedReceives.Choice

    func start(_ driver: DriverKind, budget: Int) throws(SystemError) -> BudgetedServer {
        try BudgetedServer.on(driver, choice, budget: budget)
    }
}

/// With buffers, many clients lock everything; with zero bytes, a few busy ones pay for each trip twice.
public enum FixedMode {
    private static let budget = 48
    private static let many = 64
    private static let trips = 50

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "fixed-mode",
        title: "one mode for all loads costs either locked memory or throughput",
        broken: { driver in
            let buffered = try BrokenFixedMode(choice: .buffered).start(driver, budget: budget)
            let idle = try buffered.clients(many)
            _ = eventually { buffered.pages.waiting == many - budget }
            let locked = buffered.pages
            let latecomer = try buffered.clients(1)[0]
            let isAnswered = latecomer.isAnswered(within: .milliseconds(100))
            buffered.stop()

            let zeroByte = try BrokenFixedMode(choice: .zeroByte).start(driver, budget: budget)
            let busy = try zeroByte.clients(1)[0]
            let answered = talk(busy, to: zeroByte)
            let waits = zeroByte.hub.counters.reads.waits
            zeroByte.stop()
            withExtendedLifetime(idle) {}
            return Observation(
                happened: !isAnswered && locked.locked == budget && locked.waiting == many - budget
                    && answered == trips && waits >= trips,
                lines: [
                    "always with buffers: \(many) idle clients lock \(locked.locked) of \(budget) pages, "
                        + "\(locked.waiting) wait; one more says hello: \(isAnswered ? "answered" : "no answer")",
                    "always zero bytes: one busy client, \(answered) messages: \(waits) waits before the bytes",
                ])
        },
        fixed: { driver in
            let server = try BudgetedServer.on(driver, nil, budget: budget)
            let busy = try server.clients(1)[0]
            let few = talk(busy, to: server)
            let waitsOfFew = server.hub.counters.reads.waits

            let idle = try server.clients(many)
            let lets = eventually { server.receives.mode == .zeroByte && server.pages.locked == 0 }
            let latecomer = try server.clients(1)[0]
            let isAnswered = latecomer.isAnswered() && busy.isAnswered()

            for client in idle { client.close() }
            let isBack = eventually { server.receives.mode == .buffered && server.hub.connectionCount == 2 }
            // The receive that is pending is still a zero-byte one; the next is not.
            let first = busy.isAnswered()
            let before = server.hub.counters.reads.waits
            let after = talk(busy, to: server)
            let waits = server.hub.counters.reads.waits - before
            let changes = server.receives.changesMade
            let isClean = server.stop()
            return Observation(
                happened: few != trips || waitsOfFew != 0 || !lets || !isAnswered || !isBack || !first
                    || after != trips || waits != 0 || changes != (1, 1) || !isClean,
                lines: [
                    "adaptive: one busy client, \(few) messages: \(waitsOfFew) waits",
                    "\(many) idle clients more: mode \(lets ? "zero-byte, 0 pages locked" : "unchanged"); "
                        + "one more says hello: \(isAnswered ? "answered" : "no answer")",
                    "the idle ones leave: mode \(isBack ? "buffered" : "unchanged"); "
                        + "\(after) messages: \(waits) waits",
                ])
        })

    /// One that thinks before each message, until the server has nothing to read any more and waits.
    private static func talk(_ client: Socket, to server: BudgetedServer) -> Int {
        (0..<trips).count { _ in
            // In zero-byte mode nothing is pending but that wait.
            if server.receives.mode == .zeroByte {
                _ = eventually { server.hub.connections.allSatisfy { $0.traffic.pendingReads == 1 } }
            }
            return client.isAnswered()
        }
    }
}
