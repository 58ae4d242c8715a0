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
        return try twoClients(
            "one after the other", server.listener.localAddress,
            // It would wait for ever if we let it.
            patience: .milliseconds(300))
    }

    static func fixed(_ driver: DriverKind) throws -> Observation {
        let observations = try [ServerKind.thread, .polling, .readiness, .completion].map { kind in
            let server = try kind.start(driver: driver)
            defer { server.stop() }
            return try twoClients(kind.rawValue, server.address, patience: .seconds(10))
        }
        return Observation(
            happened: observations.contains { $0.happened }, lines: observations.flatMap(\.lines))
    }

    private static func twoClients(
        _ server: String, _ address: Address, patience: Duration
    ) throws -> Observation {
        let silent = try Caller(to: address)
        defer { silent.leave() }
        let talking = try Caller(to: address)
        defer { talking.leave() }
        let asked = monotonicNanoseconds()
        try talking.say("hello")
        if try talking.hear(5, within: patience) == "hello" {
            let microseconds = (monotonicNanoseconds() - asked) / 1_000
            return Observation(
                happened: false,
                lines: ["\(server): the answer came after \(microseconds) µs, past a silent client"])
        }
        // That the silent one is to blame shows when it goes: nothing else changes.
        silent.leave()
        let released = try talking.hear(5) == "hello"
        return Observation(
            happened: released,
            lines: [
                "\(server): no answer within \(patience), with a silent client ahead",
                released ? "the silent client hung up, and the answer came" : "and none afterwards",
            ])
    }
}
