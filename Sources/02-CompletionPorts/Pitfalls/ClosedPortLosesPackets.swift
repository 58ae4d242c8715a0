import CompletionPorts
import Glibc
import Kernel
import Stage

/// Contexts that are used again and again. One that is not given back is gone: in C it leaks, with its connection.
final class ContextPool {
    private var idle: [Request]
    let size: Int

    init(_ size: Int) {
        self.size = size
        idle = (0..<size).map { Request($0) }
    }

    var missing: Int { size - idle.count }
    func take() -> Request { idle.removeLast() }
    func giveBack(_ operation: Overlapped?) {
        if let request = operation as? Request { idle.append(request) }
    }
}

/// ⚠︎ Broken on purpose: closes the port and looks no further.
struct BrokenShutdown {
    func close(_ port: CompletionPort, _ pool: ContextPool) {
        _ = port.close(draining: false)
    }
}

/// A port is closed while packets are queued, and nobody gets them.
public enum ClosedPortLosesPackets {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "closed-port-loses-packets",
        title: "a port is closed while packets are queued: their contexts leak",
        broken: { driver in try scenario(driver) { BrokenShutdown().close($0, $1) } },
        fixed: { driver in
            let drained = try scenario(driver) { port, pool in
                port.close()
                // Everything that was queued still comes, and only then the end.
                while case .completed(let packet) = port.dequeue() { pool.giveBack(packet.operation) }
            }
            let reported = try scenario(driver) { port, pool in
                for packet in port.close(draining: false) { pool.giveBack(packet.operation) }
            }
            return Observation(
                happened: drained.happened || reported.happened,
                lines: ["close, workers drain the queue:"] + drained.lines
                    + ["close(draining: false), the caller goes through what was left:"] + reported.lines)
        })

    /// Nine receives have completed, one of them was handled, and two packets were posted when the port is closed.
    private static func scenario(
        _ driver: DriverKind, close: (CompletionPort, ContextPool) -> Void
    ) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let pool = ContextPool(11)
        let pairs = try Pair.several(9)
        for pair in pairs {
            try port.associate(pair.server, key: 1)
            try pair.client.say("x")
            let request = pool.take()
            try pair.server.receive(request, into: request.memory)
        }
        // A completion is in the queue as soon as a worker has asked the kernel.
        var handled = 0
        while handled + port.queuedPackets < pairs.count {
            pool.giveBack(try port.next().operation)
            handled += 1
        }
        for _ in 0..<2 { try port.post(operation: pool.take()) }
        let queued = port.queuedPackets
        for pair in pairs { pair.server.close() }
        close(port, pool)
        return Observation(
            happened: pool.missing > 0,
            lines: [
                "queued when the port was closed: \(queued); contexts that never came back: \(pool.missing)"
            ])
    }
}
