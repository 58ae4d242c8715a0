import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: for each notice one chunk is read, and then the next notice is waited for.
final class BrokenNoticeLoop: @unchecked Sendable {
    private let port: CompletionPort
    private let notice = Overlapped()
    private(set) var notices = 0
    private(set) var chunks = 0

    init(_ driver: DriverKind) throws(SystemError) { port = try CompletionPort.on(driver, concurrency: 1) }

    /// Echoes until the client's end.
    func serve(_ socket: Socket) throws(SystemError) {
        try port.associate(socket, key: 1)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Page.size, alignment: Page.size)
        defer { memory.deallocate() }
        while true {
            try socket.receive(notice, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            _ = try port.next()
            notices += 1
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

/// A notice for each chunk is one trip to the port more than with a buffer that was posted.
public enum ZeroByteReadLosesThroughput {
    private static let messages = 50
    private static let messageSize = 16 * Page.size

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "zero-byte-read-loses-throughput",
        title: "a zero-byte receive for each chunk costs an extra trip each time",
        broken: { driver in
            let pair = try Pair()
            let loop = try BrokenNoticeLoop(driver)
            let server = startThread("server") { try? loop.serve(pair.server) }
            let isWhole = try talk(pair.client)
            pair.client.close()
            server.join()
            pair.server.close()
            return Observation(
                // Each page that arrives has to be announced, and the end as well.
                happened: isWhole && loop.notices > messages * 16,
                lines: [
                    "\(messages) messages of \(readable(messageSize)) bytes there and back, in chunks of a page",
                    "chunks read: \(loop.chunks), notices waited for: \(loop.notices), one for each and one for the end",
                ])
        },
        fixed: { driver in
            let (buffered, others) = (try run(driver, .buffered), try run(driver, .zeroByte))
            return Observation(
                happened: !others.isWhole || others.notices > messages * 8,
                lines: [
                    "zero-byte, and read until there is nothing more: \(others.notices) notices for the same bytes",
                    "buffered: \(buffered.receives) packets with bytes, and no notice",
                ])
        })

    private static func run(_ driver: DriverKind, _ policy: ReceivePolicy) throws -> (
        isWhole: Bool, notices: Int, receives: Int
    ) {
        let server = try ThriftyServer.on(driver, policy, budget: 64)
        let client = try server.clients(1)[0]
        let isWhole = try talk(client)
        let counters = server.counters
        let isClean = server.stop()
        return (isWhole && isClean, counters.notices, counters.receives)
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
