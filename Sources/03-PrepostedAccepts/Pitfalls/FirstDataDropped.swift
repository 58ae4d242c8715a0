import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: begins to receive, and forgets that the accept has received already.
struct BrokenWelcome {
    static func completed(_ frame: Frame, _ slot: Slot, _ bytes: Int, _ error: SystemError?) {
        if error == nil { frame.serve(slot.socket) }
        try? slot.post(on: frame.listener)
    }
}

/// The data that came with the accept never reaches the receive handler.
public enum FirstDataDropped {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "first-data-dropped",
        title: "the bytes that came with the accept never reach the handler of received bytes",
        broken: { driver in
            let server = try Frame(driver, slots: 1, completed: BrokenWelcome.completed)
            return try conversation(server.address, patience: Caller.glance) { server.stop() }
        },
        fixed: { driver in
            let server = try PrepostedServer.small(driver)
            return try conversation(server.address) { server.stop() }
        })

    private static func conversation(_ server: Address, patience: Duration = Gate.patience, stop: () -> Void)
        throws -> Observation
    {
        let caller = try Caller(to: server)
        try caller.say("one,")
        let first = try caller.hear(4, within: patience)
        try caller.say("two")
        let second = try caller.hear(3 + 4 - first.utf8.count, within: patience)
        caller.socket.close()
        stop()
        return Observation(
            happened: first != "one," || second != "two",
            lines: [
                "the client says \"one,\" and hears \"\(first)\"", "it says \"two\" and hears \"\(second)\"",
            ])
    }
}
