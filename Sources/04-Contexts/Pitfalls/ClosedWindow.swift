import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: what is not acknowledged for so long is taken for the silence of a dead peer.
struct BrokenKeepAlive {
    let unanswered: Duration

    func apply(to socket: Socket) throws(SystemError) {
        try socket.set(
            Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, Int32(clamping: Int(unanswered / .milliseconds(1))))
    }
}

/// A client that does not read has closed its window, and is reset as if it were dead.
public enum ClosedWindow {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "closed-window-is-no-dead-peer",
        title: "a client that is alive and does not read for a while is reset, and its bytes are lost",
        broken: { driver in
            let slow = try SlowReader(driver) { pair in
                try BrokenKeepAlive(unanswered: limit).apply(to: pair.server)
            }
            _ = slow.stand.turns(within: limit * 4) { slow.stand.table.counters.announced == 1 }
            let reasons = slow.stand.ends.locked { $0 }
            let heard = slow.hear()
            _ = slow.stand.finish()
            return Observation(
                happened: reasons == [.reset] && heard < slow.asked,
                lines: [
                    "a client reads nothing for \(readable(limit)); its system answers each question",
                    "it was closed: \(reasons.first?.description ?? "no"); "
                        + (heard < slow.asked ? "bytes are missing" : "it has every byte"),
                ])
        },
        fixed: { driver in
            let keepAlive = KeepAlive(idle: .seconds(60), unanswered: limit)
            let slow = try SlowReader(driver) { try keepAlive.apply(to: $0.server) }
            let table = slow.stand.table
            // A second client is asked nothing, and has nothing to answer.
            let quiet = try Pair()
            try keepAlive.apply(to: quiet.server)
            let unasked = try table.admit(quiet.server)
            // A third one dies while bytes are on their way to it.
            let dead = try Pair()
            try keepAlive.apply(to: dead.server)
            let connection = try table.admit(dead.server)
            try dead.client.fallSilent()
            try connection.push(Array("are you there?".utf8))
            let start = monotonicNanoseconds()
            let clock = try slow.stand.lookForPeers(unanswered: limit)
            let isFound = slow.stand.turns { table.counters.announced > 0 }
            let taken = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
            // The slow one waits for twice the limit, and then reads.
            _ = slow.stand.turns(within: limit) { table.counters.announced > 1 }
            clock.stop()
            let isDeadOnly = connection.closeReason == .reset && table.counters.announced == 1
            let heard = slow.hear()
            return Observation(
                happened: !isFound || !isDeadOnly || unasked.closeReason != nil || heard != slow.asked
                    || taken < limit
                    || !slow.stand.finish(),
                lines: [
                    "a client lost its cable with bytes on their way; found after \(readable(taken)): "
                        + "\(connection.closeReason?.description ?? "not")",
                    "another read nothing for twice the limit; then it read, and heard "
                        + (heard == slow.asked ? "every byte" : "\(heard) of \(slow.asked) bytes"),
                    "a third was asked nothing all the time; it was closed: "
                        + (unasked.closeReason?.description ?? "no"),
                ])
        })

    private static let limit = Duration.seconds(2)
}

/// A client that asks for more than fits on the way, and reads none of it.
private struct SlowReader {
    let stand: Stand
    let pair: Pair
    /// Bytes that it has sent.
    let asked: Int

    init(_ driver: DriverKind, _ prepare: (Pair) throws -> Void) throws {
        let (stand, pair) = (try Stand(driver), try Pair())
        try pair.server.setBufferSizes(send: 4_096)
        try pair.client.setBufferSizes(receive: 4_096)
        try prepare(pair)
        try stand.table.admit(pair.server)
        // More than both buffers together hold: the server's answer waits until the client reads.
        let words = [UInt8](repeating: 7, count: 16_384)
        var sent = 0
        let deadline = Deadline.after(Gate.patience)
        while sent < 1 << 18, !deadline.hasPassed {
            guard let more = try words.withUnsafeBytes({ try pair.client.sendNow($0) }) else { break }
            sent += more
            _ = stand.turns(within: .milliseconds(1)) { false }
        }
        (self.stand, self.pair, asked) = (stand, pair, sent)
    }

    /// Reads until everything is there or no more comes, while the server goes on.
    func hear() -> Int {
        var heard = 0
        _ = stand.turns {
            while let bytes = try? pair.client.hearBytes(4_096, within: .zero), !bytes.isEmpty {
                heard += bytes.count
            }
            return heard >= asked || stand.table.registry.count == 0
        }
        return heard
    }
}
