import Contexts
import Glibc
import Kernel
import ServersPitfalls
import Stage
import Testing

@testable import Servers

@Suite("Chapter 11: a link without a connection", .serialized)
struct Chapter11ServersLinks {
    /// A link to a port where nobody listens yet.
    private func apart(
        _ driver: DriverKind, _ program: Program, _ configure: (inout ClientOptions) -> Void = { _ in }
    ) throws -> (client: Client, link: Link, address: Address) {
        let server = try startServer(driver)
        let address = server.address!
        try server.stop(within: .zero)
        let client = try startClient(driver, to: address, program, configure)
        return (client, client.links[0], address)
    }

    private func bytes(_ number: Int, _ count: Int) -> [UInt8] {
        [UInt8(number)] + Array(repeating: 7, count: count)
    }

    @Test(
        "what was kept goes out as there is room for it, in its order, and what is said then goes behind",
        arguments: DriverKind.permitted)
    func kept(driver: DriverKind) async throws {
        try await onAThread {
            let (heard, told) = (Guarded<[UInt8]>([]), Guarded<[Int]>([]))
            let ears = Program()
            ears.onSent = { token, _ in told.locked { $0.append(token) } }
            // The system takes none whole, there is room for few, and one worker only: none of them is back before the first call about
            // the session is over.
            ears.onMade = { try? $0.socket?.setBufferSizes(send: 4_096) }
            let (client, link, address) = try apart(driver, ears) {
                $0.endpoint.ioWorkers = 1
                ($0.endpoint.maximumPendingSends, $0.endpoint.pendingReads) = (1, 1)
            }
            for number in 0..<64 { try link.send(bytes(number, 8_000).span.bytes, token: number) }
            let refusal = #expect(throws: SystemError.self) { try link.send(bytes(64, 1).span.bytes) }
            #expect(refusal?.code == ENOBUFS)
            let program = Program()
            program.onReceived = { message, _ in heard.locked { $0.append(message[0]) } }
            let server = try startServer(driver, program) { $0.addresses = [address] }
            #expect(eventually { link.session != nil })
            // It finds its place as soon as there is one.
            #expect(eventually { (try? link.send(bytes(64, 1).span.bytes, token: 64)) != nil })
            #expect(eventually { heard.locked { $0.count } == 65 })
            #expect(heard.locked { $0 } == (0...64).map { UInt8($0) })
            #expect(eventually { told.locked { $0.sorted() } == Array(0...64) })
            try client.stop(within: .zero)
            #expect(try server.stop(within: .zero).isQuiet)
        }
    }

    @Test(
        "what could never be sent is refused at once, and nothing waits behind it",
        arguments: DriverKind.permitted)
    func tooLong(driver: DriverKind) async throws {
        try await onAThread {
            func refusal(_ body: () throws(SystemError) -> Void) -> Int32? {
                do throws(SystemError) { try body() } catch { return error.code }
                return nil
            }
            let (client, link, address) = try apart(driver, Program()) { $0.endpoint.acknowledges = true }
            // One byte in front says whose it is, and sixteen more who has sent it.
            let (long, longNumbered) = (bytes(1, 8_191), bytes(1, 8_175))
            #expect(refusal { () throws(SystemError) in try link.send(long.span.bytes) } == EMSGSIZE)
            #expect(
                refusal { () throws(SystemError) in
                    try link.sendAcknowledged(longNumbered.span.bytes, token: 1)
                } == EMSGSIZE)
            try link.send(bytes(2, 8_190).span.bytes)
            try link.sendAcknowledged(bytes(3, 8_174).span.bytes, token: 3)
            let heard = Guarded<[UInt8]>([])
            let program = Program()
            program.onReceived = { message, _ in heard.locked { $0.append(message[0]) } }
            let server = try startServer(driver, program) {
                $0.addresses = [address]
                $0.endpoint.acknowledges = true
            }
            #expect(
                eventually { heard.locked { $0.sorted() } == [2, 3] },
                "\(heard.locked { $0 }), \(client.statistics)")
            #expect(eventually { link.session?.undelivered == [] })
            let session = try #require(link.session)
            #expect(
                refusal { () throws(SystemError) in
                    try session.sendAcknowledged(longNumbered.span.bytes, token: 4)
                } == EMSGSIZE)
            #expect(session.undelivered == [])
            try client.stop(within: .zero)
            try server.stop(within: .zero)
        }
    }

    @Test("where nothing is acknowledged a link says so, also while it is apart")
    func notAcknowledged() async throws {
        try await onAThread {
            let (client, link, _) = try apart(.epoll, Program())
            let word = bytes(1, 1)
            let refusal = #expect(throws: SystemError.self) {
                try link.sendAcknowledged(word.span.bytes, token: 1)
            }
            #expect(refusal?.code == EOPNOTSUPP)
            try client.stop(within: .zero)
        }
    }

    // I11.8
    @Test(
        "a new wish for a connection is a new row of attempts, with its pauses",
        arguments: DriverKind.permitted)
    func newRow(driver: DriverKind) async throws {
        try await onAThread {
            let attempts = Guarded<[Int]>([])
            let ears = Program()
            ears.onReconnecting = { _, attempt, _ in attempts.locked { $0.append(attempt) } }
            let (client, link, _) = try apart(driver, ears) { $0.link.reconnection?.attempts = 2 }
            for row in 1...2 {
                #expect(eventually { ears.gaveUp.value == row })
                #expect(attempts.locked { $0 } == Array([1, 2, 1, 2][..<(2 * row)]))
                link.connect()
            }
            #expect(try client.stop(within: .zero).isQuiet)
        }
    }

    @Test("a connection that stands when nobody wants it any more is ended", arguments: DriverKind.permitted)
    func unwanted(driver: DriverKind) async throws {
        try await onAThread {
            let (inside, go) = (Gate(), Gate())
            let ears = Program()
            ears.onMade = { _ in
                inside.open()
                go.pass()
            }
            let server = try startServer(driver)
            let client = try startClient(driver, to: server.address!, ears)
            #expect(inside.pass())
            client.links[0].disconnect()
            go.open()
            #expect(
                eventually { client.connectionCount == 0 && server.statistics.ends == [.closed(.ended): 1] })
            #expect(client.links[0].session == nil && client.statistics.ends == [.kicked: 1])
            // And it comes when it is wanted again.
            client.links[0].connect()
            #expect(eventually { client.links[0].session != nil })
            try client.stop(within: .zero)
            try server.stop(within: .zero)
        }
    }
}
