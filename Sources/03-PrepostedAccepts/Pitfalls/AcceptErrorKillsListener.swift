import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: an accept that failed is forgotten.
struct BrokenErrorHandling {
    static func completed(_ frame: Frame, _ slot: Slot, _ bytes: Int, _ error: SystemError?) {
        guard error == nil else { return slot.socket.close() }
        frame.serve(slot.socket, first: slot.firstData(bytes))
        try? slot.post(on: frame.listener)
    }
}

/// A client that resets before its first byte fails an accept, and nothing replaces it.
public enum AcceptErrorKillsListener {
    static let accepts = 10

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accept-error-kills-listener",
        title: "ten clients that reset take ten accepts for good, and nobody is served afterwards",
        broken: { driver in
            let server = try Frame(driver, slots: accepts, completed: BrokenErrorHandling.completed)
            return try resets(server.address, taken: { true }) { server.stop() }
        },
        fixed: { driver in
            let server = try PrepostedServer.small(driver, accepts: accepts)
            return try resets(server.address) {
                eventually { server.accepts.failed == accepts }
            } stop: {
                server.stop()
            }
        })

    private static func resets(_ server: Address, taken: () -> Bool, stop: () -> Void) throws -> Observation {
        let callers = try Caller.several(accepts, to: server)
        // A moment for the accepts to take them: who resets before that is gone from the queue without a trace.
        for caller in callers { _ = caller.isEnded(within: .milliseconds(5)) }
        for caller in callers { try caller.reset() }
        let wereTaken = taken()
        let honest = try Caller(to: server)
        let isServed = try honest.isAnswered("hello", within: Caller.glance * 2)
        honest.socket.close()
        stop()
        return Observation(
            happened: !isServed || !wereTaken,
            lines: [
                "\(accepts) clients connect and reset; there are \(accepts) accepts",
                "the next client is \(isServed ? "served" : "not served")",
            ])
    }
}
