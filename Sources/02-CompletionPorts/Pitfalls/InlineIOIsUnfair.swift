import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: goes on with a busy client, inside the turn of one packet, for as long as it has something.
struct BrokenInlineReader {
    func handle(_ client: Reader) throws(SystemError) {
        client.handleMessage()
        while try client.socket.receiveNow(into: client.request.memory) == Reader.messageSize {
            client.handleMessage()
        }
    }
}

/// A client's reader: messages of a fixed size, one at a time.
final class Reader {
    static let messageSize = 8
    let socket: Socket
    let request = Request(room: messageSize)
    private let log: Log
    private let name: String

    init(_ socket: Socket, _ name: String, _ log: Log) {
        self.socket = socket
        self.name = name
        self.log = log
    }

    func handleMessage() { log.add(name) }
    func postReceive() throws(SystemError) { try socket.receive(request, into: request.memory) }
}

/// A handler that carries on with a busy client keeps the others waiting.
public enum InlineIOIsUnfair {
    /// Messages that the busy client has sent before anything is read.
    static let messages = 1_000
    /// The most packets that may come before a quiet client's: as many as a port hands out before it asks the kernel
    /// again (61), and a few that the kernel had already.
    public static let bound = 64

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "inline-io-is-unfair",
        title: "a handler goes on with a busy client inside its own turn, and the others wait",
        broken: { driver in
            try scenario(driver) { reader throws(SystemError) in try BrokenInlineReader().handle(reader) }
        },
        fixed: { driver in
            try scenario(driver) { reader throws(SystemError) in
                // One message a turn. The next one is asked for through the port, and queues up behind the others'.
                reader.handleMessage()
                try reader.postReceive()
            }
        })

    /// The quiet client speaks when the busy one's first packet has just been dequeued. How many messages are
    /// handled before its own? One worker, this thread.
    private static func scenario(
        _ driver: DriverKind, handle: (Reader) throws(SystemError) -> Void
    ) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let log = Log()
        let pairs = try Pair.several(2)
        let readers = [Reader(pairs[0].server, "busy", log), Reader(pairs[1].server, "quiet", log)]
        for (key, reader) in readers.enumerated() {
            try port.associate(reader.socket, key: UInt(key))
            try reader.postReceive()
        }
        try pairs[0].client.say(String(repeating: "message ", count: messages))
        var packet = try port.next()
        try pairs[1].client.say("question")
        while packet.key != 1 {
            try handle(readers[Int(packet.key)])
            packet = try port.next()
        }
        let wait = log.lines.count
        for pair in pairs { pair.server.close() }
        port.close()
        return Observation(
            happened: wait > bound,
            lines: [
                "the busy client has \(messages) messages waiting, the quiet one has 1",
                "messages of the busy client that were handled before the quiet one's: \(wait)",
            ])
    }
}
