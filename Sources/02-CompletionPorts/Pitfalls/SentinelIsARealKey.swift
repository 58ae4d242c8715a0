import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a key that every handle may have means "stop".
struct BrokenSentinelWorker {
    static let stop: UInt = 0

    func run(_ port: CompletionPort, serve: (Packet) -> Void) {
        while case .completed(let packet) = port.dequeue(timeout: Gate.patience) {
            if packet.key == BrokenSentinelWorker.stop { return }
            serve(packet)
        }
    }
}

/// The message that ends a worker. It is an object of its own kind, so no connection's packet can be taken for it.
final class StopRequest: Overlapped, @unchecked Sendable {}

/// The "stop" key is also the key of a connection: its first packet ends the worker.
public enum SentinelIsARealKey {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "sentinel-is-a-real-key",
        title: "the key that means \"stop\" is also a connection's: its first packet ends the worker",
        broken: { driver in
            try scenario(driver) { port, serve in BrokenSentinelWorker().run(port, serve: serve) }
        },
        fixed: { driver in
            try scenario(driver) { port, serve in
                while case .completed(let packet) = port.dequeue(timeout: Gate.patience) {
                    if packet.operation is StopRequest { return }
                    serve(packet)
                }
            }
        })

    /// Three connections, numbered from 0 on; each client speaks. Then the worker is told to stop.
    private static func scenario(
        _ driver: DriverKind, worker: @escaping @Sendable (CompletionPort, (Packet) -> Void) -> Void
    ) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let pairs = try Pair.several(3)
        var requests: [Request] = []
        for (index, pair) in pairs.enumerated() {
            try port.associate(pair.server, key: UInt(index))
            requests.append(Request(index))
            try pair.server.receive(requests[index], into: requests[index].memory)
            try pair.client.say("hello")
        }
        let served = Counter()
        let all = Gate(count: pairs.count)
        let ended = Gate()
        let thread = startThread("worker") {
            worker(port) { _ in
                served.add()
                all.open()
            }
            ended.open()
        }
        let endedByItself = eventually { all.isOpen || ended.isOpen } && !all.isOpen
        try port.post(key: 0, operation: StopRequest())
        let stopped = ended.pass()
        thread.join()
        for pair in pairs { pair.server.close() }
        port.close()
        return Observation(
            happened: endedByItself || served.value != pairs.count || !stopped,
            lines: [
                "clients that said hello: \(pairs.count), served: \(served.value)",
                "the worker ended " + (endedByItself ? "before anybody told it to" : "when it was told to")
                    + (stopped ? "" : ", but not in time"),
            ])
    }
}
