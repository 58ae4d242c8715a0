import CompletionPorts
import Contexts
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: the next read is posted as soon as one has come, whether its turn has come or not.
final class BrokenEagerReader {
    private let socket: Socket
    private(set) var waiting: [Int: Read] = [:]
    private var expected = 0
    private var next = 0

    init(_ socket: Socket) { self.socket = socket }

    func post() throws(SystemError) {
        let read = Read()
        read.number = next
        next += 1
        try read.post(on: socket)
    }

    func handle(_ read: Read) throws(SystemError) {
        waiting[read.number] = read
        while waiting.removeValue(forKey: expected) != nil { expected += 1 }
        try post()
    }
}

/// A missing chunk lets the waiting ones pile up.
public enum ReorderGrowsWithoutBound {
    private static let chunks = 500

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "reorder-grows-without-bound",
        title: "one chunk is held up, and as many as the client sends pile up behind it",
        broken: { driver in
            let pair = try Pair()
            var options = CompletionPort.Options()
            options.driver = driver
            let port = try CompletionPort(concurrency: 1, options: options)
            try port.associate(pair.server, key: 1)
            let reader = BrokenEagerReader(pair.server)
            for _ in 0..<4 { try reader.post() }
            try pair.client.say([UInt8](repeating: 7, count: 4 * chunks))
            // The first chunk's worker is slow; the others go on.
            for _ in 0..<chunks {
                guard case .completed(let packet) = port.dequeue(timeout: .seconds(10)),
                    let read = packet.operation as? Read
                else { break }
                if read.number != 0 { try reader.handle(read) }
            }
            let piled = reader.waiting.count
            pair.server.close()
            port.close()
            return Observation(
                happened: piled == chunks - 1,
                lines: ["4 reads pending; the first chunk is held up; \(piled) others wait for it"])
        },
        fixed: { driver in
            let pair = try Pair()
            let gate = Gate()
            var probe = StreamProbe()
            probe.arrived = { if $0.kind == .receive, $0.number.value == 0 { gate.pass() } }
            let hub = try makeHub(driver, reads: 4) { $0.probe = probe }
            let sink = Sink()
            let connection = try hub.adopt(pair.server, handler: sink)
            let sent = (0..<4 * chunks).map { UInt8(truncatingIfNeeded: $0) }
            try pair.client.say(sent)
            // All that can come has come: three wait, and the rest is where it was.
            let isFull = eventually {
                connection.window.waiting == 3 && pair.server.unread == sent.count - 16
            }
            let waiting = connection.window.waiting
            let (chunksInUse, unread) = (hub.counters.chunks.inUse, pair.server.unread)
            gate.open()
            let isThere = eventually { sink.received.count == sent.count }
            let most = connection.window.mostWaiting
            let isClean = hub.stop()
            return Observation(
                happened: !isFull || chunksInUse != 4 || !isThere || sink.received != sent || most > 4
                    || !isClean,
                lines: [
                    "4 reads pending; the first chunk is held up; \(waiting) others wait for it",
                    "\(readable(unread)) bytes stay in the socket, where they hold the client back",
                    "at most \(most) were in the window, and all \(readable(sink.received.count)) bytes came in order",
                ])
        })
}
