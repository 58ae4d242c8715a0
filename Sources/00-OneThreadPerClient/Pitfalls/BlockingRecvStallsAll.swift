import Kernel
import OneThreadPerClient
import Stage

/// One thread, blocking calls, one client after the other. It works on the desk, where there is one client.
struct BrokenOneAfterTheOther {
    let listener: Socket

    init() throws(SystemError) {
        listener = try Socket.listener(on: .loopback())
        try listener.setBlocking(true)
    }

    func run() {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { buffer in
            while let client = try? listener.acceptNow() {
                try? client.setBlocking(true)
                // Whoever is in here decides when the next one is served. The silent one never does.
                while let count = try? client.receiveNow(into: buffer), count > 0 {
                    _ = try? client.sendNow(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                }
                client.close()
            }
        }
    }
}

/// A client connects and says nothing; another one asks a question. Who is answered, and when?
enum BlockingRecvStallsAll {
    static func broken(_ driver: DriverKind) throws -> Observation {
        let server = try BrokenOneAfterTheOther()
        let thread = startThread("turns") { server.run() }
        defer {
            server.listener.interrupt()
            thread.join()
        }
        // It would wait for ever if we let it.
        let answer = try twoClients(server.listener.localAddress, patience: .milliseconds(300))
        return Observation(happened: answer == .afterTheSilentOne, lines: answer.lines("one after the other"))
    }

    static func fixed(_ driver: DriverKind) throws -> Observation {
        let answers = try [ServerKind.thread, .polling, .readiness, .completion].map { kind in
            let server = try kind.start(driver: driver)
            defer { server.stop() }
            return (kind, try twoClients(server.address, patience: .seconds(10)))
        }
        // No answer at all is no cure, either.
        return Observation(
            happened: !answers.allSatisfy { $0.1.isPastTheSilentOne },
            lines: answers.flatMap { $0.1.lines($0.0.rawValue) })
    }

    /// When the client that asks is answered.
    private enum Answer: Equatable {
        case pastTheSilentOne(microseconds: UInt64)
        /// Not before the silent one had hung up: nothing else changed, so that one was to blame.
        case afterTheSilentOne
        case never

        var isPastTheSilentOne: Bool { if case .pastTheSilentOne = self { true } else { false } }

        func lines(_ server: String) -> [String] {
            switch self {
            case .pastTheSilentOne(let microseconds):
                ["\(server): the answer came after \(microseconds) µs, past a silent client"]
            case .afterTheSilentOne:
                [
                    "\(server): no answer, with a silent client ahead",
                    "the silent client hung up, and the answer came",
                ]
            case .never: ["\(server): no answer, neither past a silent client nor without it"]
            }
        }
    }

    private static func twoClients(_ address: Address, patience: Duration) throws -> Answer {
        let silent = try Caller(to: address)
        defer { silent.leave() }
        let talking = try Caller(to: address)
        defer { talking.leave() }
        let asked = monotonicNanoseconds()
        try talking.say("hello")
        if try talking.hear(5, within: patience) == "hello" {
            return .pastTheSilentOne(microseconds: (monotonicNanoseconds() - asked) / 1_000)
        }
        silent.leave()
        return try talking.hear(5) == "hello" ? .afterTheSilentOne : .never
    }
}
