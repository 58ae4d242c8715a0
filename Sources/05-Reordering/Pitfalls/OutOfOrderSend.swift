import Contexts
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: who has worked out his answer sends it.
final class BrokenAnswers: Sendable {
    func answer(_ question: UInt8, on connection: StreamConnection, work: @escaping @Sendable () -> Void)
        -> Kernel.Thread
    {
        startThread("answer") {
            work()
            try? connection.send([question])
        }
    }
}

/// Answers that take their place at once, and come when they are ready.
final class OrderedAnswers: Sendable {
    func answer(_ question: UInt8, on connection: StreamConnection, work: @escaping @Sendable () -> Void)
        -> Kernel.Thread
    {
        let ticket = try? connection.takeTicket()
        return startThread("answer") {
            work()
            try? connection.send([question], ticket: ticket)
        }
    }
}

/// Sends posted by several threads leave in another order than they should.
public enum OutOfOrderSend {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "out-of-order-send",
        title: "two workers answer two questions of one client, and the second answer leaves first",
        broken: { driver in
            let answers = BrokenAnswers()
            return try run(driver) { answers.answer($0, on: $1, work: $2) }
        },
        fixed: { driver in
            let answers = OrderedAnswers()
            return try run(driver) { answers.answer($0, on: $1, work: $2) }
        })

    private static func run(
        _ driver: DriverKind,
        _ answer: (UInt8, StreamConnection, @escaping @Sendable () -> Void) -> Kernel.Thread
    ) throws -> Observation {
        let pair = try Pair()
        let hub = try makeHub(driver, reads: 1)
        let sink = Sink()
        let connection = try hub.adopt(pair.server, handler: sink)
        // The questions come in order. The first is the harder one: it is answered when the third has been answered.
        let isAnswered = Gate()
        let first = answer(UInt8(ascii: "1"), connection) { isAnswered.pass() }
        let second = answer(UInt8(ascii: "2"), connection) {}
        second.join()
        let third = answer(UInt8(ascii: "3"), connection) {}
        third.join()
        isAnswered.open()
        first.join()
        let heard = text(try pair.client.hearBytes(3))
        let isClean = hub.stop()
        return Observation(
            happened: heard != "123" || !isClean,
            lines: ["asked:    123", "answered: \(heard)"])
    }
}
