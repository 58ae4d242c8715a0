import Glibc
import Kernel
import Stage
import Testing
import ThreadPoolIO
import ThreadPoolIOPitfalls

@Suite("Chapter 10: the server", .serialized)
struct Chapter10ThreadPoolIOServer {
    @Test(
        "lines come with their client and length; what is sent to all reaches all",
        arguments: DriverKind.permitted)
    func lines(driver: DriverKind) async throws {
        try await onAThread {
            let heard = Lines()
            let server = try server(driver) { heard.note($0) }
            let clients = try (0..<3).map { _ in try Socket.connected(to: server.address) }
            for (number, client) in clients.enumerated() { try client.say("one\n\nthree\(number)") }
            for client in clients { try client.say("!\nrest") }
            #expect(eventually { heard.count == 9 })
            #expect(eventually { server.counters.connections == 3 })
            #expect(server.sendToAll(Array("to all".utf8)) == 3)
            for client in clients { #expect(try client.hear(7) == "to all\n") }
            for client in clients { client.close() }
            #expect(eventually { server.counters.connections == 0 })
            try server.stop()
            #expect(
                heard.sorted == [
                    "", "", "", "one", "one", "one", "rest", "rest", "rest", "three0!", "three1!", "three2!",
                ])
            #expect(server.counters.lines == 12)
        }
    }

    @Test("sockets are used again, and nothing piles up", arguments: DriverKind.permitted)
    func reuse(driver: DriverKind) async throws {
        try await onAThread {
            let server = try server(driver)
            for _ in 0..<3 {
                let clients = try (0..<20).map { _ in try Socket.connected(to: server.address) }
                #expect(eventually { server.counters.connections == 20 })
                for client in clients { client.close() }
                #expect(eventually { server.counters.connections == 0 })
            }
            for _ in 0..<10 {
                let client = try Socket.connected(to: server.address)
                #expect(eventually { server.counters.connections == 1 })
                client.close()
                #expect(eventually { server.counters.connections == 0 })
            }
            #expect(server.counters.reused > 0)
            // At most as many sockets are kept as there may be accepts, pending or at rest.
            #expect(server.counters.kept <= 10)
            try server.stop()
        }
    }

    @Test("a silent client is ended, and so is one that never takes its end", arguments: DriverKind.permitted)
    func limits(driver: DriverKind) async throws {
        try await onAThread {
            let heard = Lines()
            let server = try server(driver, { heard.note($0) }) {
                $0.silenceLimit = .milliseconds(200)
                $0.leavingLimit = .milliseconds(200)
            }
            let silent = try Socket.connected(to: server.address)
            #expect(silent.isEnded())
            #expect(eventually { heard.ends == [ETIMEDOUT] })
            // Sends its end, and never reads what it is sent.
            let stuck = try Socket.connected(to: server.address)
            #expect(eventually { server.counters.connections == 1 })
            let text = [UInt8](repeating: 65, count: 1 << 20)
            for _ in 0..<20 { server.sendToAll(text) }
            try stuck.shutDownSending()
            #expect(eventually { server.counters.connections == 0 })
            try server.stop()
        }
    }

    @Test(
        "too many clients are refused; one that does not read is passed over", arguments: DriverKind.permitted
    )
    func refusals(driver: DriverKind) async throws {
        try await onAThread {
            let server = try server(driver) { _ in
            } with: {
                $0.maximumConnections = 2
                $0.maximumPendingSends = 2
            }
            let clients = try (0..<2).map { _ in try Socket.connected(to: server.address) }
            #expect(eventually { server.counters.connections == 2 })
            #expect(try Socket.connected(to: server.address).isEnded())
            #expect(server.counters.refused == 1)
            let text = [UInt8](repeating: 65, count: 4 << 20)
            for _ in 0..<4 { server.sendToAll(text) }
            #expect(server.counters.passedOver > 0)
            try server.stop()
            for client in clients { client.close() }
        }
    }

    @Test(
        "it ends well ten times, with clients in every state, and leaves nothing",
        arguments: DriverKind.permitted.map(\.rawValue))
    func ends(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = DriverKind(rawValue: driver)!
            try PoolServerEnd.run(kind, seed: 0)
            Resources.settle()
            let before = (Resources.threads, Resources.openDescriptors)
            for seed in 1...10 { try PoolServerEnd.run(kind, seed: seed) }
            let isBack = eventually {
                Resources.threads <= before.0 && Resources.openDescriptors <= before.1
            }
            #expect(isBack, "\(before), \(Resources.threads), \(Resources.whatIsOpen)")
        }
    }

    private func server(
        _ driver: DriverKind, _ report: @escaping @Sendable (PoolServer.Report) -> Void = { _ in },
        with change: (inout PoolServer.Options) -> Void = { _ in }
    ) throws(SystemError) -> PoolServer {
        var options = PoolServer.Options()
        options.pool.port.driver = driver
        change(&options)
        return try PoolServer(options: options, report: report)
    }
}

/// What a server has reported.
private final class Lines: @unchecked Sendable {
    private let lock = Lock()
    private var lines: [String] = []
    private var codes: [Int32] = []
    var count: Int { lock.locked { lines.count } }
    var sorted: [String] { lock.locked { lines.sorted() } }
    var ends: [Int32] { lock.locked { codes } }

    func note(_ report: PoolServer.Report) {
        lock.locked {
            switch report {
            case .line(let bytes, _): lines.append(String(decoding: bytes, as: UTF8.self))
            case .disconnected(_, let error?): codes.append(error.code)
            default: break
            }
        }
    }
}
