import Contexts
import Glibc
import Kernel
import Reordering
import Servers
import Stage

/// ⚠︎ Broken on purpose: a cap on pending sends that throws away what comes when it is reached.
final class BrokenEcho: StreamHandler {
    private let dropped: Counter
    init(_ dropped: Counter) { self.dropped = dropped }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        guard connection.sendsUnderWay <= 20, (try? connection.send(chunk.contents)) != nil else {
            dropped.add(chunk.contents.count)
            return
        }
    }
}

/// A client sends, and does not read.
public enum SendFlood {
    static let count = 1_000, size = 2_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "send-flood",
        title: "a client sends and does not read: a cap on pending sends throws its answers away",
        broken: { driver in
            let dropped = Counter()
            let hub = try startHub(driver) { $0.maximumPendingSends = 64 }
            let address = try hub.listen { _ in BrokenEcho(dropped) }
            let client = try Socket.connected(to: address)
            try client.setBufferSizes(receive: 65_536)
            // The server reads on, so all of it is sent before a byte is read.
            let all = count * size * 4
            try client.say([UInt8](repeating: 7, count: all), within: .seconds(30))
            _ = eventually { hub.counters.traffic.bytesReceived == all }
            try client.shutDownSending()
            try client.setBufferSizes(receive: 1 << 20)
            let back = readAll(client)
            hub.stop()
            return Observation(
                happened: back.bytes.count < all && dropped.value > 0,
                lines: [
                    "\(all) bytes sent before any was read",
                    "\(back.bytes.count) came back, \(dropped.value) were dropped",
                ])
        },
        fixed: { driver in
            let program = Program()
            // The system's own buffers may be larger than what is sent here.
            program.onConnected = { try? $0.socket?.setBufferSizes(send: 65_536) }
            program.onReceived = { message, session in try? session.send(message.span.bytes) }
            let server = try startServer(driver, program) {
                $0.endpoint.maximumPendingSends = 20
                $0.endpoint.limits.stall = nil
            }
            let client = try PlainClient(to: server.address!)
            try client.socket.setBufferSizes(receive: 65_536)
            let frames = (0..<count * 3).flatMap { number in
                PlainClient.frame([UInt8](repeating: UInt8(number % 251), count: size))
            }
            let writer = startThread("flood") { try? client.socket.say(frames, within: .seconds(30)) }
            let isPaused = eventually { server.statistics.paused == 1 }
            let held = server.statistics
            // The session is not read from, and the rest waits at the client.
            try client.socket.setBufferSizes(receive: 1 << 20)
            let back = try client.socket.hearBytes(frames.count, within: .seconds(30))
            writer.join()
            let isResumed = eventually { server.statistics.paused == 0 }
            let last = try server.stop()
            // Above the cap lies what its pending reads had brought already.
            let most = 20 + 2 * (4_096 / size + 1) + 2
            return Observation(
                happened: !isPaused || !isResumed || back != frames || last.peakPendingSends > most
                    || !last.isQuiet,
                lines: [
                    "paused with \(held.pendingSends) sends under way (most \(last.peakPendingSends))",
                    "then the client reads: \(back.count) of \(frames.count) bytes, the same ones: \(back == frames)",
                ])
        })
}
