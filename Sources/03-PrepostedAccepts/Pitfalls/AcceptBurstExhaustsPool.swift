import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: replaces each accept that completes, and does not see that none completes any more.
struct BrokenFixedPool {
    static func completed(_ frame: Frame, _ slot: Slot, _ bytes: Int, _ error: SystemError?) {
        let socket = slot.socket
        if error == nil, bytes > 0 {
            frame.serve(socket, first: slot.firstData(bytes))
        } else {
            socket.close()
        }
        try? slot.post(on: frame.listener)
    }
}

/// A burst larger than the pool finds no accept pending.
public enum AcceptBurstExhaustsPool {
    static let slow = 10
    static let quick = 20

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accept-burst-exhausts-pool",
        title: "a burst larger than the pool finds no accept pending, and nothing tells the server",
        broken: { driver in
            let server = try Frame(driver, slots: slow, completed: BrokenFixedPool.completed)
            return try burst(
                server.address, patience: Caller.glance, pool: { "\(slow) accepts all the time" },
                isBack: { true }
            ) {
                server.stop()
            }
        },
        fixed: { driver in
            // The sweep ends nobody here: the accepts that the quick ones need can only be new ones.
            let server = try PrepostedServer.small(driver, accepts: slow, most: 100) { options in
                options.pool.silenceLimit = nil
            }
            return try burst(server.address) {
                let now = server.accepts
                return
                    "at most \(now.peak) accepts; it grew: \(now.shortages); accepts in the end: \(now.pending)"
            } isBack: {
                eventually { server.accepts.pending == slow }
            } stop: {
                server.stop()
            }
        })

    /// Ten clients connect and take their time. Twenty more connect behind them, and speak at once.
    private static func burst(
        _ server: Address, patience: Duration = Gate.patience, pool: () -> String, isBack: () -> Bool,
        stop: () -> Void
    ) throws -> Observation {
        let callers = try Caller.several(slow + quick, to: server)
        let late = callers[slow...]
        for caller in late { try caller.say("quick") }
        // All of them together wait for as long as one.
        let deadline = Deadline.after(patience)
        let answered = try late.map { caller in
            try caller.hear(5, within: .nanoseconds(Int64(deadline.remaining))) == "quick"
        }.yes
        for caller in callers[..<slow] { try caller.say("slow") }
        let inTheEnd = try callers[..<slow].map { caller in try caller.hear(4) == "slow" }.yes
        for caller in callers { caller.socket.close() }
        let isBackToSize = isBack()
        let line = pool()
        stop()
        return Observation(
            happened: answered < quick || inTheEnd < slow || !isBackToSize,
            lines: [
                "\(slow) clients connect and take their time; \(quick) connect behind them and speak at once",
                "answered meanwhile: \(answered) of \(quick)",
                "the slow ones, when they speak: \(inTheEnd) answered",
                "the pool: \(line)",
            ])
    }
}
