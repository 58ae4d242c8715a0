import AsyncEvents
import Kernel
import Stage

/// A receive is posted, and its result is asked for before anything was sent.
enum ResultBeforeCompletion {
    static let pitfall = Pitfall(
        slug: "result-before-completion",
        title: "the result is asked for before there is one, and 0 bytes are taken for the end of the stream",
        broken: { try broken($0) }, fixed: { try fixed($0) })

    static func broken(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let hasty = BrokenHaste(server)
        let early = try hasty.receive()
        try client.say("hello")
        _ = hasty.operation.wait(until: .after(Gate.patience))
        return Observation(
            happened: early == 0 && hasty.operation.bytes == 5,
            lines: [
                "posted, and asked for the result at once: \(early) bytes, which looks like the end of the stream",
                "a moment later \(hasty.operation.bytes) bytes are there, and nobody looks any more",
            ])
    }

    static func fixed(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let operation = Stand.operation()
        let memory = Memory(16)
        try server.receive(operation, into: memory.bytes)
        var early: ResultError?
        do throws(ResultError) { _ = try operation.result() } catch { early = error }

        // Asked with waiting, the thread is as blocked as in a plain receive, until somebody sends.
        let (hasStarted, hasAnswer) = (Gate(), Gate())
        let waiter = Box()
        let thread = try Thread("waiter") {
            waiter.number = Thread.currentID
            hasStarted.open()
            waiter.bytes = (try? operation.result(waiting: true, until: .after(Gate.patience))) ?? -1
            hasAnswer.open()
        }
        hasStarted.pass()
        let blocks = eventually { Thread.state(of: waiter.number) == .blocked } && !hasAnswer.isOpen
        try client.say("hello")
        thread.join()
        return Observation(
            happened: early != .incomplete || !blocks || waiter.bytes != 5,
            lines: [
                "asked without waiting: \(early.map { "\($0)" } ?? "a number")",
                "asked with waiting: the thread \(blocks ? "is blocked" : "goes on") while nobody sends",
                "then \(waiter.bytes) bytes",
            ])
    }

    /// Written by one thread before a gate or a join, read by another after it.
    private final class Box: @unchecked Sendable {
        var number: Int32 = 0
        var bytes = 0
    }
}

/// Uses an operation's result as soon as it is posted.
final class BrokenHaste {
    let operation = Stand.operation()
    private let socket: Socket
    private let memory = Memory(16)

    init(_ socket: Socket) { self.socket = socket }

    func receive() throws -> Int {
        try socket.receive(operation, into: memory.bytes)
        // The error says "incomplete". It is dropped, and what is left looks like a byte count.
        return (try? operation.result()) ?? 0
    }
}
