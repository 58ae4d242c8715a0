import CompletionPorts
import Contexts
import Glibc
import Kernel
import ManyPorts
import Reordering
import Stage

/// ⚠︎ Broken on purpose: a connection that asks nobody but the system whether it may move.
final class BrokenMovable: Sendable {
    let socket: Socket
    let seen = Guarded("")

    init(_ socket: Socket) { self.socket = socket }

    func receive() throws(SystemError) {
        let read = Read()
        try socket.receive(read, into: read.memory)
    }

    func move(to port: CompletionPort) throws(SystemError) {
        // Refused while an operation is pending, and while the queue has a packet. What a worker has in its hand, only
        // the workers know.
        try port.reassociate(socket, key: 1)
        try receive()
    }

    /// What a worker does with a packet of this connection.
    func handle(_ read: Read) { seen.locked { $0 += read.text } }
}

/// A connection leaves while one of its packets is still at its port.
public enum MovedWithPacketQueued {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "moved-with-packet-queued",
        title: "a connection moves while its last packet has not been handled",
        broken: observeBroken, fixed: observeFixed)

    @Sendable private static func observeBroken(_ driver: DriverKind) throws -> Observation {
        var options = CompletionPort.Options()
        options.driver = driver
        let ports = [
            try CompletionPort(concurrency: 1, options: options),
            try CompletionPort(concurrency: 1, options: options),
        ]
        let pair = try Pair()
        let connection = BrokenMovable(pair.server)
        try ports[0].associate(pair.server, key: 1)
        try connection.receive()
        try pair.client.say("a")
        // A look into the driver brings the packet of the read, behind or before this one.
        let isQueued = eventually {
            try? ports[0].post()
            return ports[0].queuedPackets > 1 && ports[0].holdsPackets(withKey: 1)
        }
        var refusal = "it is moved"
        do throws(SystemError) { try connection.move(to: ports[1]) } catch {
            refusal = error.code == EBUSY ? "refused" : "\(error)"
        }
        // A worker takes all of them in its hand, and handles the first.
        var batch = PacketBatch(capacity: 64)
        guard case .packets = ports[0].dequeue(into: &batch) else {
            throw SystemError.closed("take a packet")
        }
        var moved = false
        do throws(SystemError) {
            try connection.move(to: ports[1])
            moved = true
        } catch {}
        try pair.client.say("b")
        // The other port's worker.
        var other = PacketBatch(capacity: 1)
        if moved, case .packets = ports[1].dequeue(into: &other, timeout: Gate.patience) {
            (other.next()?.operation as? Read).map(connection.handle)
        }
        // And now the first comes to it.
        while let packet = batch.next() { (packet.operation as? Read).map(connection.handle) }
        let order = connection.seen.locked { $0 }
        pair.server.close()
        for port in ports { port.close() }
        return Observation(
            happened: isQueued && moved && order == "ba",
            lines: [
                "while the packet is in the queue: \(refusal)",
                "while a worker has it in its hand, behind another: \(moved ? "the connection is moved" : "refused")",
                "the client said \"ab\"; handled: \"\(order)\"",
            ])
    }

    /// The same with a set of two ports, whose workers take two packets at a time.
    @Sendable private static func observeFixed(_ driver: DriverKind) throws -> Observation {
        var options = PortSet.Options()
        (options.ports, options.placement, options.interval) = (2, .fewest, nil)
        (options.streams.batch, options.streams.port.driver) = (64, driver)
        let set = try PortSet(options)
        let (hold, go, busy, done) = (Gate(), Gate(), Gate(), Gate())
        defer {
            go.open()
            done.open()
        }
        let (first, second) = (try Pair(), try Pair())
        let handler = Holder { text in
            // The worker is held, so that both clients' bytes are there when it asks again; then it is held with the second
            // client's packet in its hand.
            if text == "1" {
                hold.open()
                go.pass()
            } else if text == "2" {
                busy.open()
                done.pass()
            }
        }
        let heard = Holder { _ in }
        let blocker = try set.hub.adopt(first.server, handler: handler)
        let mover = try set.hub.adopt(second.server, handler: heard)
        try set.reassign(mover, to: 0)
        let isTogether = eventually { set.place(of: mover) == 0 && set.place(of: blocker) == 0 }
        try first.client.say("1")
        let isHeld = hold.pass()
        try first.client.say("2")
        try second.client.say("a")
        go.open()
        let isBusy = busy.pass()
        // Its packet is at the port: in the queue, or in the worker's hand.
        let made = set.counters.moves.made
        try set.reassign(mover, to: 1)
        try second.client.say("b")
        let early = set.counters.moves.made - made
        done.open()
        let isMoved = eventually { set.place(of: mover) == 1 }
        try second.client.say("c")
        let isThere = eventually { heard.text.count == 3 }
        let order = heard.text
        let isBack = set.stop()
        return Observation(
            happened:
                !(isTogether && isHeld && isBusy && early == 0 && isMoved && isThere && order == "abc"
                && isBack),
            lines: [
                "while a worker has the packet in its hand, behind another: moved \(early) times",
                "when it has been handled: the connection is on port \(isMoved ? 1 : 0)",
                "the client said \"abc\"; handled: \"\(order)\"",
            ])
    }
}

/// Keeps what it hears.
private final class Holder: StreamHandler {
    private let seen = Guarded("")
    private let before: @Sendable (String) -> Void

    init(_ before: @escaping @Sendable (String) -> Void) { self.before = before }

    var text: String { seen.locked { $0 } }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        let text = String(decoding: chunk.contents, as: UTF8.self)
        before(text)
        seen.locked { $0 += text }
    }
}

/// A read with a buffer of its own.
final class Read: Overlapped, @unchecked Sendable {
    // This object's own, for as long as it lives: a pending operation is kept alive.
    let memory: UnsafeMutableRawBufferPointer

    override init() {
        memory = .allocate(byteCount: 16, alignment: 8)
        super.init()
    }

    deinit { memory.deallocate() }

    var text: String { String(decoding: memory[..<bytes], as: UTF8.self) }
}
