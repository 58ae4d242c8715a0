import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: ten accepts are posted when the server starts, and that was that.
struct BrokenUnreplenished {
    static func completed(_ frame: Frame, _ slot: Slot, _ bytes: Int, _ error: SystemError?) {
        guard error == nil, bytes > 0 else { return slot.socket.close() }
        frame.serve(slot.socket, first: slot.firstData(bytes))
        // The accept is used up, and nothing takes its place.
    }
}

/// A consumed accept is not replaced.
public enum AcceptsNotReplenished {
    static let clients = 100

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accepts-not-replenished",
        title: "a consumed accept is not replaced, and after N clients nobody gets in",
        broken: { driver in
            let server = try Frame(driver, slots: 10, completed: BrokenUnreplenished.completed)
            return try inTurn(server.address, patience: Caller.glance) { server.stop() }
        },
        fixed: { driver in
            let server = try PrepostedServer.small(driver)
            return try inTurn(server.address) { server.stop() }
        })

    private static func inTurn(_ server: Address, patience: Duration = Gate.patience, stop: () -> Void) throws
        -> Observation
    {
        var served = 0
        for _ in 0..<clients {
            let caller = try Caller(to: server)
            let isServed = try caller.isAnswered("hi", within: served < 10 ? Gate.patience : patience)
            caller.socket.close()
            guard isServed else { break }
            served += 1
        }
        stop()
        return Observation(
            happened: served < clients,
            lines: [
                "\(clients) clients come one after the other", "served before the first was not: \(served)",
            ])
    }
}
