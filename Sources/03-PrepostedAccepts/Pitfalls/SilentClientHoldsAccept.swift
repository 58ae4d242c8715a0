import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: trusts every client to say something.
struct BrokenPatience {
    static func change(_ options: inout PrepostedServer.Options) {
        options.pool.silenceLimit = nil
    }
}

/// An accept that waits for first data is held by a client that connects and says nothing.
public enum SilentClientHoldsAccept {
    static let silent = 20

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "silent-client-holds-accept",
        title: "clients that connect and say nothing hold every accept, and lock everybody out",
        broken: { driver in
            try attack(
                PrepostedServer.small(driver, most: silent, change: BrokenPatience.change), within: nil)
        },
        fixed: { driver in
            let server = try PrepostedServer.small(driver, most: silent) { options in
                options.pool.silenceLimit = .milliseconds(100)
            }
            return try attack(server, within: Gate.patience)
        })

    /// As many silent clients as the pool may have accepts, and then an honest one.
    private static func attack(_ server: PrepostedServer, within patience: Duration?) throws -> Observation {
        let attackers = try Caller.several(silent, to: server.address)
        _ = eventually { server.accepts.pending == silent }
        let start = monotonicNanoseconds()
        let honest = try Caller(to: server.address)
        let isServed = try honest.isAnswered("please", within: patience ?? .milliseconds(800))
        let waited = Duration.nanoseconds(monotonicNanoseconds() - start)
        let swept = server.accepts.swept
        for caller in attackers + [honest] { caller.socket.close() }
        server.stop()
        return Observation(
            happened: !isServed,
            lines: [
                "\(silent) silent clients hold \(silent) accepts, which is the pool's maximum",
                "an honest client is " + (isServed ? "served after " : "not served after ")
                    + readable(waited),
                "silent clients that were ended meanwhile: \(swept)",
            ])
    }
}
