import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: nothing to cancel, so nothing is pending, so nothing will come.
struct BrokenConclusion {
    private(set) var isFree = false

    mutating func cancel(_ request: Request, on socket: Socket) {
        if !socket.cancel(request) { isFree = true }
    }
}

/// "Nothing to cancel" is taken for proof that no packet will come.
public enum CancelFoundNothing {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "cancel-found-nothing",
        title: "\"nothing to cancel\" is taken for proof that no packet will come",
        broken: { driver in
            let late = try CompletedInQueue(driver, "hello")
            var conclusion = BrokenConclusion()
            conclusion.cancel(late.request, on: late.pair.server)
            let packet = try late.port.next()
            late.port.close()
            return Observation(
                happened: conclusion.isFree && packet.operation === late.request,
                lines: [
                    "the cancel found nothing, and the context was taken for free",
                    "then its packet came, with \(packet.bytes) bytes",
                ])
        },
        fixed: { driver in
            let late = try CompletedInQueue(driver, "hello")
            // Whatever it says: who cancels goes on waiting for the packet, which comes exactly once.
            let found = late.pair.server.cancel(late.request)
            let packet = try late.port.next()
            let again = late.pair.server.cancel(late.request)
            let isQuiet = (try? late.port.next(within: .milliseconds(30))) == nil

            // On an idle connection, the same: an answer, and no error.
            let stand = try Stand(driver)
            let pair = try Pair()
            let connection = try stand.table.admit(pair.server)
            connection.close()
            connection.close()
            try stand.turn()
            let ends = stand.ends.locked { $0 }
            late.port.close()
            return Observation(
                happened: found || again || packet.bytes != 5 || !isQuiet || ends != [.cancelled]
                    || !stand.finish(),
                lines: [
                    "the cancel found nothing; the packet came with \(packet.bytes) bytes, and no second one",
                    "a cancel after that: \(again ? "something" : "nothing") to cancel, and no error",
                ])
        })
}
