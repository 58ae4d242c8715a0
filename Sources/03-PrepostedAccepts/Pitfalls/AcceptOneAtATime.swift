import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: takes a client, finds out what it wants, and only then takes the next one.
final class BrokenAcceptLoop: Sendable {
    let listener: Socket
    let served = Counter()
    private let thread: Thread

    init() throws(SystemError) {
        let listener = try Socket.listener(on: .loopback())
        try listener.setBlocking(true)
        self.listener = listener
        let served = served
        thread = try Thread("accept loop") {
            while let client = try? listener.acceptNow() {
                // The set-up needs the client's first words. Meanwhile nobody calls accept.
                try? client.setBlocking(true)
                if BrokenAcceptLoop.greet(client) { served.add() }
            }
        }
    }

    private static func greet(_ client: Socket) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { words in
            guard let count = try? client.receiveNow(into: words), count > 0 else { return false }
            return (try? client.sendNow(.init(rebasing: words[..<count]))) != nil
        }
    }

    func stop() {
        listener.interrupt()
        thread.join()
    }
}

/// One loop calls accept, and everybody waits for it.
public enum AcceptOneAtATime {
    static let clients = 8

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accept-one-at-a-time", title: "one loop calls accept, and a burst of clients queues behind it",
        broken: { _ in
            let server = try BrokenAcceptLoop()
            let address = try server.listener.localAddress
            return try burst(address, patience: Caller.glance) { server.stop() }
        },
        fixed: { driver in
            // The sweep ends nobody here: the silent client keeps its accept, and the others have theirs.
            let server = try PrepostedServer.small(driver) { $0.pool.silenceLimit = nil }
            return try burst(server.address) { server.stop() }
        })

    /// The first client of a burst has not made up its mind yet; all others speak at once.
    private static func burst(
        _ server: Address, patience: Duration = Gate.patience, stop: () -> Void
    ) throws -> Observation {
        let callers = try Caller.several(clients, to: server)
        for caller in callers.dropFirst() { try caller.say("hello") }
        var answered = 0
        // All of them together wait for as long as one.
        let deadline = Deadline.after(patience)
        for caller in callers.dropFirst() {
            let left = Duration.nanoseconds(Int64(deadline.remaining))
            if try caller.hear(5, within: left) == "hello" { answered += 1 }
        }
        try callers[0].say("hello")
        let wasLate = try callers[0].hear(5) == "hello"
        for caller in callers { caller.socket.close() }
        stop()
        return Observation(
            happened: answered < clients - 1 || !wasLate,
            lines: [
                "\(clients) clients connect at once; the first says nothing yet, the others say hello",
                "answered while the first is silent: \(answered) of \(clients - 1)",
                "the first, when it speaks: \(wasLate ? "answered" : "not answered")",
            ])
    }
}
