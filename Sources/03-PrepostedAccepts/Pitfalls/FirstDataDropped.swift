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
            let isTaken = Gate()
            let server = try Frame(driver, slots: 1) { frame, slot, bytes, error in
                BrokenWelcome.completed(frame, slot, bytes, error)
                isTaken.open()
            }
            return try conversation(server.address, isTaken) { server.stop() }
        },
        fixed: { driver in
            let server = try PrepostedServer.small(driver)
            return try conversation(server.address, nil) { server.stop() }
        })

    /// The first words come with the accept, and the second after it. What is heard first tells whose they are.
    private static func conversation(_ server: Address, _ isTaken: Gate?, stop: () -> Void) throws
        -> Observation
    {
        let caller = try Caller(to: server)
        try caller.say("one,")
        var first = isTaken == nil ? try caller.hear(4) : ""
        isTaken?.pass()
        try caller.say("two")
        var second = try caller.hear(3)
        if second == "one" {
            first = try second + caller.hear(1)
            second = try caller.hear(3)
        }
        caller.socket.close()
        stop()
        return Observation(
            happened: first != "one," || second != "two",
            lines: [
                "the client says \"one,\" and hears \"\(first)\"", "it says \"two\" and hears \"\(second)\"",
            ])
    }
}
