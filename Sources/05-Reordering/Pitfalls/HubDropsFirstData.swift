import CompletionPorts
import Contexts
import Glibc
import Kernel
import PrepostedAccepts
import Reordering
import Stage

/// ⚠︎ Broken on purpose: takes the connections of an accept pool over, and looks at nothing but the socket.
final class BrokenArrivals: Sendable {
    let address: Address
    private let pool: AcceptPool
    private let workers: WorkerGroup

    init(_ driver: DriverKind, into hub: StreamHub, _ handler: @escaping @Sendable () -> any StreamHandler)
        throws(SystemError)
    {
        let listener = try Socket.listener(on: .loopback())
        address = try listener.localAddress
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        try port.associate(listener, key: 1)
        let pool = try AcceptPool(on: listener) { arrival in
            _ = try? hub.adopt(arrival.client.socket, handler: handler())
        }
        self.pool = pool
        workers = try WorkerGroup(1, on: port) { packet, error in pool.handle(packet, error) }
        try pool.start()
    }

    func stop() {
        pool.stop()
        workers.stop()
    }
}

/// The bytes that came with the accept are not the first of the stream.
public enum HubDropsFirstData {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "hub-drops-first-data",
        title: "the layer above the accepts ignores the bytes that came with them",
        broken: { driver in
            let hub = try makeHub(driver, reads: 2)
            let sink = Sink()
            let arrivals = try BrokenArrivals(driver, into: hub) { sink }
            return try conversation(arrivals.address, hub, sink) { arrivals.stop() }
        },
        fixed: { driver in
            let hub = try makeHub(driver, reads: 2) { $0.accepts.receiveLength = 8 }
            let sink = Sink()
            let address = try hub.listen { _ in sink }
            return try conversation(address, hub, sink) {}
        })

    private static func conversation(
        _ address: Address, _ hub: StreamHub, _ sink: Sink, stop: () -> Void
    ) throws -> Observation {
        let client = try Socket.connected(to: address)
        // The accept completes with the first words, and the connection is there.
        try client.say("one,")
        let isTaken = eventually { hub.connectionCount == 1 }
        try client.say("two,")
        try client.shutDownSending()
        let isOver = sink.over.pass()
        stop()
        let isClean = hub.stop()
        guard isTaken, isOver, isClean else { throw SystemError(ETIMEDOUT, attempted: "end a connection") }
        let got = text(sink.received)
        return Observation(
            happened: got != "one,two,", lines: ["sent:     one,two,", "received: \(got)"])
    }
}
