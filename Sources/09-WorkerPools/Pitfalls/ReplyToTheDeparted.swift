import Contexts
import Glibc
import Kernel
import Reordering
import Stage
import WorkerPools

/// ⚠︎ Broken on purpose: a job that remembers its client by the number of its socket.
struct BrokenJob {
    let client: Int32

    func answer(_ text: String) -> Int {
        text.withCString { send(client, $0, strlen($0), Int32(MSG_NOSIGNAL)) }
    }
}

/// A job is done after its client has left, and another client has come.
public enum ReplyToTheDeparted {
    /// For the demo and the tests. Descriptors are the whole process's: the tests run the broken half in one of its own.
    public static let pitfall = Pitfall(
        slug: "reply-to-the-departed",
        title: "a job is done after its client left, and its answer goes to another",
        broken: { _ in
            let (begun, end) = (Gate(), Gate())
            let listener = try Socket.listener(on: .loopback())
            try listener.setBlocking(true)
            let address = try listener.localAddress
            var clients = try (0..<16).map { _ in try LineClient(to: address) }
            let (a, server) = (clients.removeFirst(), try accept(listener))
            let job = BrokenJob(client: server.descriptor)
            let worker = startThread("logical 1") {
                begun.open()
                end.pass()
                _ = job.answer("your balance\n")
            }
            defer {
                end.open()
                worker.join()
            }
            begun.pass()
            try a.socket.abort()
            server.close()
            // Others come, and one of them gets the number. Nobody leaves: that would free other numbers.
            let all = clients
            var held: [Socket] = []
            var b: LineClient?
            while b == nil, !clients.isEmpty {
                held.append(try accept(listener))
                let client = clients.removeFirst()
                if held.last?.descriptor == job.client { b = client }
            }
            end.open()
            let heard = try b?.hear(within: .seconds(2))
            withExtendedLifetime((held, all)) {}
            return Observation(
                happened: heard == "your balance",
                lines: [
                    "A left, and B got its number",
                    "B, who has asked nothing, hears \"\(heard ?? "nothing")\"",
                ])
        },
        fixed: { driver in
            let (begun, end) = (Gate(), Gate())
            let server = try makeServer(driver) {
                $0.probe = { job in
                    guard job.command == "primes 30" else { return }
                    begun.open()
                    end.pass()
                }
            }
            defer { end.open() }
            let address = try server.listen()
            let a = try LineClient(to: address)
            try a.say("primes 30")
            let isRunning = begun.pass()
            try a.socket.abort()
            let isGone = eventually { server.hub.connections.isEmpty }
            let others = try (0..<8).map { _ in try LineClient(to: address) }
            // They stand when they are answered, so one of them has the number by now.
            var isRight = try others.allSatisfy { try $0.ask("hello") == "hello" }
            end.open()
            let isCounted = eventually { server.pool.counters.done == 1 }
            // A job of one's own, behind the other one: what was sent before it has come before it.
            isRight = try others.allSatisfy { try $0.ask("primes 10") == "4 primes below 10" } && isRight
            let departed = server.pool.counters.departed
            return Observation(
                happened: !isRunning || !isGone || !isCounted || !isRight || departed != 1 || !server.stop(),
                lines: [
                    "A left; its name finds nobody: \(departed) answer dropped and counted",
                    "8 others, of whom one has A's number, hear their own answers only: \(isRight)",
                ])
        })

    private static func accept(_ listener: Socket) throws(SystemError) -> Socket {
        guard let socket = try listener.acceptNow() else {
            throw SystemError(EAGAIN, attempted: "accept a client that waits")
        }
        return socket
    }
}
