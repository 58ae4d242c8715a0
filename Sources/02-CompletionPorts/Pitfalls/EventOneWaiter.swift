import CompletionPorts
import Glibc
import Kernel
import Stage

/// An event wakes everybody who waits for it, or one and leaves the rest. A port gives each completion to one thread.
///
/// The events are in chapter 01; here is what takes their place.
public enum EventOneWaiter {
    /// Threads that wait at one port.
    public static let threads = 4
    private static let rounds = 250

    /// Four threads wait; every completion comes to exactly one of them, and the others go on waiting.
    public static func fixed(_ driver: DriverKind) throws -> Observation {
        let port = try CompletionPort.on(driver, concurrency: threads)
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        let returned = Counter()
        let handled = Counter()
        let group = (0..<threads).map { index in
            startThread("waiter \(index)") {
                while true {
                    let outcome = port.dequeue()
                    if case .closed = outcome { return }
                    returned.add()
                    guard case .completed(let packet) = outcome, packet.bytes == 1 else { continue }
                    handled.add()
                }
            }
        }
        let allWait = { eventually { port.workers == (0, threads) } }
        var counts: [Int: Int] = [:]
        let request = Request(room: 1)
        for _ in 0..<rounds {
            guard allWait() else { break }
            let before = returned.value
            try pair.server.receive(request, into: request.memory)
            try pair.client.say("x")
            // Everybody waits again: whoever was to return has returned.
            guard eventually({ returned.value > before }), allWait() else { break }
            counts[returned.value - before, default: 0] += 1
        }
        port.close()
        for thread in group { thread.join() }
        pair.server.close()
        let exactlyOne = counts[1] ?? 0
        return Observation(
            happened: exactlyOne != rounds || handled.value != rounds,
            lines: [
                "threads waiting at one port: \(threads); completions, one at a time: \(rounds)",
                "completions for which exactly one thread returned: \(exactlyOne)",
            ])
    }
}
