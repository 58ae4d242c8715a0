import Glibc
import Kernel
import OneThreadPerClient
import Stage

/// What everybody writes first: a new client, a new thread.
///
/// Nothing is wrong with any line of it. Nobody has said how many clients there may be.
final class BrokenThreadPerClient: @unchecked Sendable {
    let listener: Socket
    private var threads: [Thread] = []

    init() throws(SystemError) {
        listener = try Socket.listener(on: .loopback())
        try listener.setBlocking(true)
    }

    /// Accepts until the listener is interrupted, then waits for the clients to leave.
    func run() {
        while let client = try? listener.acceptNow() {
            threads.append(startThread("client") { self.echo(client) })
        }
        for thread in threads { thread.join() }
    }

    private func echo(_ client: Socket) {
        try? client.setBlocking(true)
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { buffer in
            // A thread sleeps here for as long as its client has nothing to say.
            while let count = try? client.receiveNow(into: buffer), count > 0 {
                _ = try? client.sendNow(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            }
        }
        client.close()
    }
}

/// Grows the number of clients from 1 to 1,000 and counts the threads of the process. Everything that is counted
/// has to be this scenario's, so it needs a process of its own.
public enum ThreadPerClient {
    /// The clients at each step.
    public static let steps = [1, 10, 100, 1_000]

    static func broken(_ driver: DriverKind) throws -> Observation {
        let server = try BrokenThreadPerClient()
        let thread = startThread("accept") { server.run() }
        defer {
            server.listener.interrupt()
            thread.join()
        }
        return observation(of: [("a thread each", try threads(serving: server.listener.localAddress))])
    }

    static func fixed(_ driver: DriverKind) throws -> Observation {
        try observation(
            of: [.readiness, .completion].map { (kind: ServerKind) in
                let server = try kind.start(driver: driver)
                defer { server.stop() }
                return (kind.rawValue, try threads(serving: server.address))
            })
    }

    /// The threads of this process at each step. Every client has been answered when they are counted.
    static func threads(serving address: Address) throws -> [Int] {
        var callers: [Caller] = []
        defer { for caller in callers { caller.leave() } }
        return try steps.map { clients in
            while callers.count < clients {
                let caller = try Caller(to: address)
                callers.append(caller)
                try caller.say("?")
                guard try caller.hear(1) == "?" else {
                    throw SystemError(ETIMEDOUT, attempted: "wait for an answer")
                }
            }
            return Resources.threads
        }
    }

    private static func observation(of servers: [(name: String, threads: [Int])]) -> Observation {
        let lines = servers.map { server in
            let counts = zip(steps, server.threads).map { "\(counted($0, "client")): \($1)" }
            return "threads of the process, \(server.name): " + counts.joined(separator: ", ")
        }
        let more = steps.last! - steps.first!
        return Observation(
            happened: servers.contains { $0.threads.last! - $0.threads.first! >= more / 10 }, lines: lines)
    }
}
