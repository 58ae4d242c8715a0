import Glibc
import Kernel
import Stage
import ThreadPoolIO

/// The server's end, with clients in every state: on their way in, silent, in the middle of a line, talking, not reading
/// what they are sent, leaving, gone with a reset.
public enum PoolServerEnd {
    /// What one of these ends has shown.
    public struct Report: Sendable {
        /// Clients that were taken in.
        public var accepted = 0
        /// How long the end took.
        public var time = Duration.zero
        /// Threads, running callbacks and connections that were left: to be 0.
        public var left = 0
    }

    /// Starts a server, sends it clients, and stops it at some moment.
    @discardableResult
    public static func run(_ driver: DriverKind, seed: Int, clients: Int = 24) throws -> Report {
        var options = PoolServer.Options()
        options.pool.port.driver = driver
        let server = try PoolServer(options: options)
        var sockets: [Socket] = []
        for number in 0..<clients {
            let client = try Socket.connected(to: server.address)
            switch (number + seed) % 7 {
            case 0: break
            case 1: try client.say("half a li")
            case 2: try client.say("a line\nand another\n")
            case 3: try client.abort()
            case 4: client.close()
            case 5: _ = server.sendToAll([UInt8](repeating: 120, count: 200_000))
            default: try client.shutDownSending()
            }
            sockets.append(client)
        }
        // Some stop while clients still come in, some when all are there.
        if seed % 3 == 0 { _ = eventually(within: .milliseconds(50)) { server.counters.accepted == clients } }
        if seed % 3 == 1 { usleep(UInt32(seed % 10) * 100) }
        var report = Report()
        let start = monotonicNanoseconds()
        try server.stop()
        report.time = .nanoseconds(monotonicNanoseconds() - start)
        report.accepted = server.counters.accepted
        let pool = server.pool.counters
        report.left = pool.threads + pool.running + server.counters.connections
        for socket in sockets { socket.close() }
        guard report.left == 0 else { throw SystemError(EBUSY, attempted: "stop a server") }
        return report
    }
}
