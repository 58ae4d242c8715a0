import AsyncEvents
import Glibc
import Kernel
import Stage

/// Two receives in flight on one operation: five bytes are to come for the first, three for the second.
enum SharedOverlapped {
    static let pitfall = Pitfall(
        slug: "shared-overlapped",
        title: "two requests are in flight on one operation, and one result overwrites the other",
        broken: { _ in try broken() }, fixed: { try fixed($0) })

    static func broken() throws -> Observation {
        let pair = try Pair()
        let (client, server) = (pair.client, pair.server)
        try server.setBlocking(true)
        let device = try BrokenDevice()
        let shared = BrokenOverlapped()
        let (one, two) = (Memory(16), Memory(16))
        // Two requests in flight, one structure: nobody objects.
        device.receive(shared, from: server, into: one)
        device.receive(shared, from: server, into: two)
        try client.say("hello")
        _ = eventually { shared.count == 1 }
        try client.say("you")
        device.end()
        // The program gets round to the first request now.
        let answer = shared.bytes
        return Observation(
            happened: answer != 5,
            lines: [
                "two receives posted on one operation: both accepted",
                "the first got \"\(one.text(5))\", the second got \"\(two.text(3))\"",
                "asked for the bytes of the first: \(answer), of 5",
            ])
    }

    static func fixed(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let operation = Stand.operation(Event(.manual))
        let (one, two) = (Memory(16), Memory(16))
        try server.receive(operation, into: one.bytes)
        var refusal: SystemError?
        do throws(SystemError) { try server.receive(operation, into: two.bytes) } catch { refusal = error }
        try client.say("hello")
        let answer = try operation.result(waiting: true, until: .after(Gate.patience))
        // The same operation again, now that its first life is over.
        try server.receive(operation, into: two.bytes)
        try client.say("you")
        let second = try operation.result(waiting: true, until: .after(Gate.patience))
        return Observation(
            happened: refusal?.code != EALREADY || answer != 5 || second != 3,
            lines: [
                "the second post on the pending operation: \(refusal.map(String.init(describing:)) ?? "accepted")",
                "asked for the bytes of the first: \(answer), of 5",
                "posted again when it had completed, and asked: \(second), of 3",
            ])
    }
}
