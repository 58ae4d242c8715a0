import CompletionPorts
import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Stage

/// What a handler has made of a stream.
final class Heard: Sendable {
    private let state = Guarded<(messages: [[UInt8]], verdicts: [String], error: FrameError?)>(([], [], nil))

    func add(_ message: [UInt8]) { state.locked { $0.messages.append(message) } }
    func say(_ verdict: String) { state.locked { $0.verdicts.append(verdict) } }
    func fail(_ error: FrameError) { state.locked { $0.error = error } }

    var messages: [[UInt8]] { state.locked { $0.messages } }
    var verdicts: [String] { state.locked { $0.verdicts } }
    var error: FrameError? { state.locked { $0.error } }
    /// The messages for people.
    var shown: [String] { messages.map { $0.span.bytes.printable } }
}

/// Keeps what it hears.
final class Collector<Codec: FrameCodec>: FrameHandler {
    private let heard: Heard
    private let meanwhile: @Sendable (Int) -> Void

    /// - Parameter meanwhile: Called within each message, with its number from 0 on.
    init(_ heard: Heard, meanwhile: @escaping @Sendable (Int) -> Void = { _ in }) {
        self.heard = heard
        self.meanwhile = meanwhile
    }

    func received(_ message: RawSpan, on connection: FramedConnection<Codec>) {
        meanwhile(heard.messages.count)
        heard.add(message.withUnsafeBytes { Array($0) })
    }

    func failed(_ connection: FramedConnection<Codec>, _ error: FrameError) {
        heard.fail(error)
        heard.say("\(connection.peakCapacity) bytes allocated")
        connection.finish()
    }

    func ended(_ connection: FramedConnection<Codec>) {
        heard.say("ended in order")
        connection.finish()
    }
}

/// Sends pieces to a hub, each in a chunk of its own, then the end of the stream; returns when the connection is over.
func play(
    _ pieces: [[UInt8]], to options: StreamHub.Options, _ handler: @escaping @Sendable () -> any StreamHandler
) throws {
    var options = options
    let arrived = Counter()
    let lookOn = options.probe?.arrived
    var probe = StreamProbe()
    probe.arrived = { chunk in
        arrived.add()
        lookOn?(chunk)
    }
    options.probe = probe
    let hub = try StreamHub(options)
    let address = try hub.listen { _ in handler() }
    let client = try Client(to: address)
    for (index, piece) in pieces.enumerated() {
        try client.send(piece)
        // The next bytes come when these have been taken: so they come in a chunk of their own.
        guard eventually({ arrived.value > index }) else {
            throw SystemError(ETIMEDOUT, attempted: "wait for a chunk")
        }
    }
    // A server that has closed already needs no end.
    try? client.socket.shutDownSending()
    _ = try? client.receive()
    let isOver = eventually { hub.counters.alive == 0 }
    guard hub.stop(), isOver else { throw SystemError(ETIMEDOUT, attempted: "end a connection") }
}

/// A frame of the article: four bytes, the least significant first, then the message.
func frame(_ text: String) -> [UInt8] { frame(Array(text.utf8)) }
func frame(_ message: [UInt8]) -> [UInt8] { frame(length: message.count) + message }

/// Its header alone.
func frame(length: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } }

extension Array where Element == UInt8 {
    /// The number that the first four bytes are.
    var length: Int { prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) } }
}
