import Contexts
import Framing
import Kernel
import Reordering
import Stage
import WorkerPools

/// ⚠︎ Broken on purpose: works the answer out where the question was read.
public final class BrokenLines: FrameHandler {
    private let compute: @Sendable (String) -> String

    /// - Parameter compute: What answers a line, however long it takes.
    public init(_ compute: @escaping @Sendable (String) -> String) { self.compute = compute }

    /// Answers when the answer is known.
    public func received(_ message: RawSpan, on connection: FramedConnection<Lines>) {
        let line = message.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        try? connection.reply(compute(line))
    }
}

/// One client's computation, and everybody else's I/O.
public enum ComputationOnIOWorker {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "computation-on-io-worker",
        title: "a long computation in a handler holds up every client of its worker",
        broken: { driver in
            let (begun, end) = (Gate(), Gate())
            var options = StreamHub.Options()
            (options.workers, options.concurrency, options.port.driver) = (1, 1, driver)
            let hub = try StreamHub(options)
            let address = try hub.listen { _ in
                FramedConnection(
                    Lines(),
                    handler: BrokenLines { line in
                        guard line != "hello" else { return line }
                        begun.open()
                        end.pass()
                        return "computed"
                    })
            }
            return try observe(address, begun, end) { hub.stop() }
        },
        fixed: { driver in
            let (begun, end) = (Gate(), Gate())
            let server = try makeServer(driver) {
                $0.probe = { _ in
                    begun.open()
                    end.pass()
                }
            }
            return try observe(try server.listen(), begun, end) { server.stop() }
        })

    /// A asks for a computation, and while it lasts B says hello.
    private static func observe(
        _ address: Address, _ begun: Gate, _ end: Gate, _ stop: () -> Bool
    ) throws -> Observation {
        // Whatever happens, no worker is left at the gate.
        defer { end.open() }
        let (a, b) = (try LineClient(to: address), try LineClient(to: address))
        try a.say("primes 30")
        let isComputing = begun.pass()
        let early = try b.ask("hello", within: .milliseconds(200))
        end.open()
        let late = try early ?? b.hear()
        let answer = try a.hear()
        return Observation(
            happened: isComputing && early == nil && late == "hello",
            lines: [
                "while A's question is being worked out, B says hello and hears "
                    + (early.map { "\"\($0)\"" } ?? "nothing"),
                "then A hears \"\(answer ?? "nothing")\"" + (early == nil ? ", and B its \"hello\"" : ""),
                "everything is back: \(stop())",
            ])
    }
}
