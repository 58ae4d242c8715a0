import CompletionPorts
import Glibc
import Kernel
import Stage

/// What the classic call gives back: a Boolean and out-parameters. Only all of them together say what happened.
struct ClassicResult {
    var succeeded: Bool
    var key: UInt = 0
    var operation: Overlapped?
}

extension CompletionPort {
    /// The four outcomes, squeezed into the classic shape.
    func classicDequeue(timeout: Duration) -> ClassicResult {
        switch dequeue(timeout: timeout) {
        case .completed(let packet):
            ClassicResult(succeeded: true, key: packet.key, operation: packet.operation)
        case .failed(let packet, _):
            ClassicResult(succeeded: false, key: packet.key, operation: packet.operation)
        case .timedOut, .closed: ClassicResult(succeeded: false)
        }
    }
}

/// ⚠︎ Broken on purpose: takes every false return for an operation that failed.
public struct BrokenFailureCheck: Sendable {
    /// What is done with the context of a failed operation.
    let touch: @Sendable (Overlapped?) -> Void

    /// Asks once, and handles what comes.
    func turn(_ port: CompletionPort, timeout: Duration) {
        let result = port.classicDequeue(timeout: timeout)
        if !result.succeeded {
            // A timeout comes this way too, and a closed port, and they have no context.
            touch(result.operation)
        }
    }

    /// What C does with the pointer: it takes it for a context, and writes there.
    public static func writeIntoContext(_ operation: Overlapped?) {
        let context = unsafeBitCast(operation, to: Request.self)
        context.memory.storeBytes(of: 1, as: UInt8.self)
        context.offset = 0
    }

    /// Asks a port that has nothing, once, and handles the "failure". It does not come back.
    public static func crash(_ driver: DriverKind) throws {
        let port = try CompletionPort.on(driver)
        BrokenFailureCheck(touch: writeIntoContext).turn(port, timeout: .zero)
    }
}

/// A timeout is taken for a failed operation, and its context, which is null, is touched.
public enum NullOverlappedFailure {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "null-overlapped-failure",
        title: "a timeout or a closed port is taken for a failed operation, and a null context is touched",
        broken: { driver in
            try scenario(driver) { port, timeout, log in
                BrokenFailureCheck { operation in
                    log.add(operation == nil ? "failed: context at address 0" : "failed: context")
                }.turn(port, timeout: timeout)
            }
        },
        fixed: { driver in
            try scenario(driver) { port, timeout, log in
                switch port.dequeue(timeout: timeout) {
                case .completed: break
                case .failed(let packet, _):
                    log.add(packet.operation == nil ? "failed: context at address 0" : "failed: context")
                case .timedOut: log.add("timed out: there is no context")
                case .closed: log.add("closed: there is no context")
                }
            }
        })

    /// One of each: an operation that fails, nothing at all, a closed port.
    private static func scenario(
        _ driver: DriverKind, turn: (CompletionPort, Duration, Log) -> Void
    ) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let pair = try Pair()
        try port.associate(pair.server, key: 7)
        let request = Request()
        try pair.server.receive(request, into: request.memory)
        pair.server.close()
        let log = Log()
        turn(port, Gate.patience, log)
        turn(port, .zero, log)
        port.close()
        turn(port, .zero, log)
        return Observation(
            happened: log.lines.contains("failed: context at address 0"),
            lines: zip(["an operation fails", "nothing comes", "the port is closed"], log.lines)
                .map { "\($0): \($1)" })
    }
}

/// What a scenario's threads have to say, in the order they said it.
final class Log: @unchecked Sendable {
    private let monitor = Monitor()
    private var said: [String] = []  // under the monitor

    func add(_ line: String) { monitor.locked { said.append(line) } }
    var lines: [String] { monitor.locked { said } }
}
