import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: knows two ends of an accept, a client and an error, and takes 0 bytes for neither.
struct BrokenEmptyAccept {
    static func completed(_ frame: Frame, _ slot: Slot, _ bytes: Int, _ error: SystemError?) {
        if error != nil {
            slot.socket.close()
            try? slot.post(on: frame.listener)
        } else if bytes > 0 {
            frame.serve(slot.socket, first: slot.firstData(bytes))
            try? slot.post(on: frame.listener)
        }
        // 0 bytes and no error: the socket stays open, and the accept is never posted again.
    }
}

/// The client closes before its first byte: the accept completes with 0 bytes, and no error.
public enum AcceptCompletesEmpty {
    static let accepts = 4

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accept-completes-empty",
        title: "a client leaves before its first byte, and the accept that completes with 0 bytes is lost",
        broken: { driver in
            let server = try Frame(driver, slots: accepts, completed: BrokenEmptyAccept.completed)
            return try visitors(server.address, patience: Caller.glance) {
                let left = { server.slots.filter { $0.socket.descriptor >= 0 && !$0.isPending }.count }
                _ = eventually { left() == accepts }
                return ("sockets left open: \(left())", true)
            } stop: {
                server.stop()
            }
        },
        fixed: { driver in
            let server = try PrepostedServer.small(driver, accepts: accepts)
            return try visitors(server.address) {
                _ = eventually { server.accepts.empty == accepts }
                let (announced, recycled) = (server.counters.peak, server.accepts.empty)
                return (
                    "announced: \(announced), recycled: \(recycled)", announced == 0 && recycled == accepts
                )
            } stop: {
                server.stop()
            }
        })

    private static func visitors(
        _ server: Address, patience: Duration = Gate.patience, facts: () -> (line: String, areRight: Bool),
        stop: () -> Void
    ) throws -> Observation {
        for _ in 0..<accepts {
            let caller = try Caller(to: server)
            try caller.socket.shutDownSending()
            _ = caller.isEnded(within: Caller.glance)
            caller.socket.close()
        }
        let (line, areRight) = facts()
        let honest = try Caller(to: server)
        let isServed = try honest.isAnswered("hello", within: patience)
        honest.socket.close()
        stop()
        return Observation(
            happened: !isServed || !areRight,
            lines: [
                "\(accepts) clients come and leave without a word; there are \(accepts) accepts", line,
                "the next client is \(isServed ? "served" : "not served")",
            ])
    }
}
