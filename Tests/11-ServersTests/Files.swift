import FileTransfer
import Kernel
import Contexts
import Servers
import ServersPitfalls
import Stage
import Testing

@Suite("Chapter 11: files of a session", .serialized)
struct Chapter11ServersFiles {
    private final class Directions: EndpointHandler {
        let sends = Guarded<[String: Set<Bool>]>([:])
        let finished = Counter()
        func progress(_ progress: TransferProgress, _ session: Session) {
            guard let isSending = session.statistics.file?.isSending else { return }
            sends.locked { _ = $0[progress.name, default: []].insert(isSending) }
        }
        func fileFinished(_ result: TransferResult, _ session: Session) { finished.add() }
    }

    @Test("both sides say which of them sends a file, whoever has begun it", arguments: DriverKind.permitted)
    func directions(driver: DriverKind) async throws {
        try await onAThread {
            let folder = try Folder()
            defer { folder.remove() }
            // Before there is a connection, which has to show itself in time.
            let up = try folder.make("client", "up", 300_000)
            _ = try folder.make("server", "down", 300_000)
            let (there, here) = (Directions(), Directions())
            let server = try startServer(driver, there) { $0.endpoint.files = folder.options("server") }
            let client = try startClient(driver, to: server.address!, here) {
                $0.endpoint.files = folder.options("client")
            }
            let link = client.links[0]
            #expect(eventually { link.session != nil })
            let session = try #require(link.session)
            try session.sendFile(up)
            #expect(eventually { there.finished.value == 1 && here.finished.value == 1 })
            try session.fetchFile("down")
            #expect(eventually { there.finished.value == 2 && here.finished.value == 2 })
            #expect(here.sends.locked { $0 } == ["up": [true], "down": [false]])
            #expect(there.sends.locked { $0 } == ["up": [false], "down": [true]])
            #expect(client.statistics.filesDone == 2 && server.statistics.filesDone == 2)
            try client.stop(within: .zero)
            try server.stop(within: .zero)
        }
    }

    // I11.6
    @Test(
        "a client that has sent a file has shown itself, though it has said nothing else",
        arguments: DriverKind.permitted)
    func onlyFiles(driver: DriverKind) async throws {
        try await onAThread {
            let folder = try Folder()
            defer { folder.remove() }
            let path = try folder.make("client", "up", 300_000)
            let here = Directions()
            let limit = isSanitized ? Duration.seconds(5) : .seconds(1)
            let server = try startServer(driver, Program()) {
                $0.endpoint.files = folder.options("server")
                $0.endpoint.limits.handshake = limit
            }
            let client = try startClient(driver, to: server.address!, here) {
                $0.endpoint.files = folder.options("client")
                $0.link.reconnection = nil
            }
            #expect(eventually { client.links[0].session != nil })
            let session = try #require(client.links[0].session)
            // For longer than the limit.
            let end = Deadline.after(limit * 2)
            var count = 0
            while !end.hasPassed {
                try session.sendFile(path, as: "up-\(count)")
                count += 1
                try #require(eventually { here.finished.value == count })
            }
            #expect(client.statistics.filesDone == count)
            let ends = server.statistics.ends
            #expect(ends.isEmpty, "\(ends)")
            try client.stop(within: .zero)
            try server.stop(within: .zero)
        }
    }
}
