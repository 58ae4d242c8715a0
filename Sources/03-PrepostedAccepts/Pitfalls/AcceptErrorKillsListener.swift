import Glibc
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
            return try resets(server.address, patience: Caller.glance) {
                server.slots.filter { $0.socket.descriptor >= 0 }.count
            } failed: {
                server.slots.filter { !$0.isPending }.count
            } stop: {
                server.stop()
            }
        },
        fixed: { driver in
            let server = try PrepostedServer.small(driver, accepts: accepts)
            return try resets(server.address) {
                server.accepts.held
            } failed: {
                server.accepts.failed
            } stop: {
                server.stop()
            }
        })

    /// Nobody resets before all are taken: each of the accepts has its client then, and fails with it.
    private static func resets(
        _ server: Address, patience: Duration = Gate.patience, taken: () -> Int, failed: () -> Int,
        stop: () -> Void
    ) throws -> Observation {
        let callers = try Caller.several(accepts, to: server)
        let wereTaken = eventually { taken() == accepts }
        for caller in callers { try caller.reset() }
        let haveFailed = eventually { failed() == accepts }
        // Without this there would be nothing to survive.
        guard wereTaken, haveFailed else {
            throw SystemError(ETIMEDOUT, attempted: "have \(accepts) clients taken, and reset")
        }
        let honest = try Caller(to: server)
        let isServed = try honest.isAnswered("hello", within: patience)
        honest.socket.close()
        stop()
        return Observation(
            happened: !isServed,
            lines: [
                "\(accepts) clients connect and reset; there are \(accepts) accepts",
                "all were taken, and all accepts have failed",
                "the next client is \(isServed ? "served" : "not served")",
            ])
    }
}
