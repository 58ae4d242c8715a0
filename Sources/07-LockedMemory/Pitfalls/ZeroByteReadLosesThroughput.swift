import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: for each wait one chunk is read, and then there is the next wait.
final class BrokenWaitLoop: @unchecked Sendable {
    private let port: CompletionPort
    private let wait = Overlapped()
    private(set) var waits = 0
    private(set) var chunks = 0

    init(_ driver: DriverKind) throws(SystemError) { port = try CompletionPort.on(driver, concurrency: 1) }

    /// Echoes until the client's end.
    func serve(_ socket: Socket) throws(SystemError) {
        try port.associate(socket, key: 1)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Page.size, alignment: Page.size)
        defer { memory.deallocate() }
        while true {
            try socket.receive(wait, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            _ = try port.next()
            waits += 1
            guard let count = try socket.receiveNow(into: memory) else { continue }
            if count == 0 { break }
            chunks += 1
            // The peer reads while it writes, so that what is sent fits.
            var rest = UnsafeRawBufferPointer(rebasing: memory[..<count])
            while !rest.isEmpty {
                rest = UnsafeRawBufferPointer(rebasing: rest[(try socket.sendNow(rest) ?? 0)...])
            }
        }
        port.close()
    }
}

/// A wait for each chunk is one trip to the port more than with a buffer that was posted.
public enum ZeroByteReadLosesThroughput {
    private static let messages = 50
    private static let messageSize = 16 * Page.size
    private static let chunks = messages * 16

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "zero-byte-read-loses-throughput",
        title: "a zero-byte receive for each chunk costs an extra trip each time",
        broken: { driver in
            let pair = try Pair()
            let loop = try BrokenWaitLoop(driver)
            let server = startThread("server") { try? loop.serve(pair.server) }
            let isWhole = try talk(pair.client)
            pair.client.close()
            server.join()
            pair.server.close()
            return Observation(
                // Each page that arrives has to be waited for, and the end as well.
                happened: isWhole && loop.waits > chunks,
                lines: [
                    "\(messages) messages of \(readable(messageSize)) bytes there and back, in chunks of a page",
                    "for \(loop.chunks) chunks: \(loop.waits) trips to the port, and none of them brings a byte",
                ])
        },
        fixed: { driver in
            let (zeroByte, buffered) = (try run(driver, .zeroByte), try run(driver, .buffered))
            return Observation(
                happened: !zeroByte.isWhole || !buffered.isWhole || zeroByte.waits * 2 > zeroByte.chunks
                    || zeroByte.chunks < chunks || buffered.reads < chunks || buffered.waits != 0,
                lines: [
                    "zero-byte, and read until there is nothing more: for \(zeroByte.chunks) chunks "
                        + "\(zeroByte.waits) trips to the port",
                    "buffered: for \(buffered.chunks) chunks \(buffered.reads) trips, and each brings its bytes along",
                ])
        })

    private struct Run {
        var isWhole = false
        var (chunks, waits, reads) = (0, 0, 0)
    }

    private static func run(_ driver: DriverKind, _ choice: BudgetedReceives.Choice) throws -> Run {
        let server = try BudgetedServer.on(driver, choice, budget: 64)
        let client = try server.clients(1)[0]
        var run = Run()
        run.isWhole = try talk(client)
        let counters = server.hub.counters
        run.chunks = counters.traffic.chunksReceived
        (run.waits, run.reads) = (counters.reads.waits, counters.reads.reads)
        run.isWhole = server.stop() && run.isWhole
        return run
    }

    /// Says every message whole before it hears any of it. Returns whether all came back. Trips to the port are counted,
    /// and not the time: over the loopback, and with one loop that does nothing else, a trip costs next to nothing.
    private static func talk(_ client: Socket) throws(SystemError) -> Bool {
        let message = String(repeating: "m", count: messageSize)
        var isWhole = true
        for _ in 0..<messages {
            try client.say(message)
            isWhole = try client.hear(messageSize) == message && isWhole
        }
        return isWhole
    }
}
