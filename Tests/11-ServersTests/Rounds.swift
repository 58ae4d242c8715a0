import Contexts
import Kernel
import ServersPitfalls
import Stage
import Testing

@testable import Servers

@Suite("Chapter 11: what is looked at from time to time", .serialized)
struct Chapter11ServersRounds {
    // I4.9
    @Test(
        "a peer that leaves what was sent without any answer is given up; one that is silent and answers stays",
        arguments: DriverKind.permitted)
    func deadPeers(driver: DriverKind) async throws {
        try await onAThread {
            let server = try startServer(driver) { $0.endpoint.keepAlive?.unanswered = .milliseconds(200) }
            let (dead, alive) = (try PlainClient(to: server.address!), try PlainClient(to: server.address!))
            #expect(dead.isEchoed() && alive.isEchoed())
            try dead.socket.fallSilent()
            #expect(server.sendToAll(Array("are you there?".utf8).span.bytes) == (accepted: 2, refused: 0))
            #expect(eventually { server.statistics.ends == [.closed(.reset): 1] })
            #expect(server.connectionCount == 1 && alive.hear() == "are you there?" && alive.isEchoed())
            dead.socket.close()
            try alive.socket.abort()
            #expect(try server.stop(within: .zero).isQuiet)
        }
    }

    // I11.3, I11.5
    @Test(
        "a handler that is asked about a limit, or told of the next attempt, and stops its endpoint is told so",
        arguments: DriverKind.permitted)
    func stopFromAClock(driver: DriverKind) async throws {
        try await onAThread {
            let told = Guarded<[EndpointError]>([])
            @Sendable func stop(_ endpoint: Endpoint?) {
                do throws(EndpointError) { try endpoint?.stop() } catch { told.locked { $0.append(error) } }
            }
            let place = Guarded<(server: Server?, client: Client?)>((nil, nil))
            let program = Program.echo()
            program.onExpired = { _, _ in
                stop(place.locked { $0.server })
                return false
            }
            let server = try startServer(driver, program) { $0.endpoint.limits.handshake = .milliseconds(50) }
            place.locked { $0.server = server }
            let silent = try PlainClient(to: server.address!)
            #expect(silent.socket.isEnded())
            silent.socket.close()
            #expect(told.locked { $0 } == [.wouldWaitForItself])
            let address = server.address!
            try server.stop(within: .zero)

            // An attempt is a timer's, and so may be the word about the next one.
            let ears = Program()
            ears.onReconnecting = { _, _, _ in stop(place.locked { $0.client }) }
            let client = try startClient(driver, to: address, ears)
            place.locked { $0.client = client }
            #expect(eventually { told.locked { $0.count } >= 3 })
            #expect(told.locked { $0 }.allSatisfy { $0 == .wouldWaitForItself })
            place.locked { $0 = (nil, nil) }
            #expect(try client.stop(within: .zero).isQuiet)
        }
    }
}
