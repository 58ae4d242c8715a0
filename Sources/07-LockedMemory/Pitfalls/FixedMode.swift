import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: one mode for all loads, chosen when the program was written.
struct BrokenFixedMode {
    let policy: ReceivePolicy

    func start(_ driver: DriverKind, budget: Int) throws(SystemError) -> ThriftyServer {
        try ThriftyServer.on(driver, policy, budget: budget)
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
            let buffered = try BrokenFixedMode(policy: .buffered).start(driver, budget: budget)
            let idle = try buffered.clients(many)
            _ = eventually { buffered.budget.counters.waiting == many - budget }
            let locked = buffered.budget.counters
            let latecomer = try buffered.clients(1)[0]
            let isAnswered = latecomer.isAnswered(within: .milliseconds(100))
            buffered.stop()

            let zeroByte = try BrokenFixedMode(policy: .zeroByte).start(driver, budget: budget)
            let busy = try zeroByte.clients(1)[0]
            let answered = talk(busy, to: zeroByte)
            let notices = zeroByte.counters.notices
            zeroByte.stop()
            withExtendedLifetime(idle) {}
            return Observation(
                happened: !isAnswered && locked.locked == budget && locked.waiting == many - budget
                    && answered == trips && notices >= trips,
                lines: [
                    "always with buffers: \(many) idle clients lock \(locked.locked) of \(budget) pages, "
                        + "\(locked.waiting) wait; one more says hello: \(isAnswered ? "answered" : "no answer")",
                    "always zero bytes: one busy client, \(answered) messages: \(notices) notices before the bytes",
                ])
        },
        fixed: { driver in
            let server = try ThriftyServer.on(driver, nil, budget: budget)
            let busy = try server.clients(1)[0]
            let few = talk(busy, to: server)
            let noticesOfFew = server.counters.notices

            let idle = try server.clients(many)
            let lets = eventually { server.mode == .zeroByte && server.budget.counters.locked == 0 }
            let latecomer = try server.clients(1)[0]
            let isAnswered = latecomer.isAnswered() && busy.isAnswered()

            for client in idle { client.close() }
            let isBack = eventually { server.mode == .buffered && server.counters.connections == 2 }
            // The receive that is pending is still a zero-byte one; the next is not.
            let first = busy.isAnswered()
            let before = server.counters.notices
            let after = talk(busy, to: server)
            let notices = server.counters.notices - before
            let changes = server.counters.changes
            let isClean = server.stop()
            return Observation(
                happened: few != trips || noticesOfFew != 0 || !lets || !isAnswered || !isBack || !first
                    || after != trips || notices != 0 || changes != (1, 1) || !isClean,
                lines: [
                    "adaptive: one busy client, \(few) messages: \(noticesOfFew) notices",
                    "\(many) idle clients more: mode \(lets ? "zero-byte, 0 pages locked" : "unchanged"); "
                        + "one more says hello: \(isAnswered ? "answered" : "no answer")",
                    "the idle ones leave: mode \(isBack ? "buffered" : "unchanged"); "
                        + "\(after) messages: \(notices) notices",
                ])
        })

    /// One that thinks before each message, until the server has nothing to read any more and waits.
    private static func talk(_ client: Socket, to server: ThriftyServer) -> Int {
        (0..<trips).count { _ in
            // In zero-byte mode the only buffer that is in use goes back just before the next notice is posted.
            if server.mode == .zeroByte { _ = eventually { server.slab.counters.inUse == 0 } }
            return client.isAnswered()
        }
    }
}
