import Glibc
import Kernel
import ServersPitfalls
import Stage
import Testing

@testable import Servers

@Suite("Chapter 11: jobs of a session", .serialized)
struct Chapter11ServersJobs {
    @Test("a job without an answer leaves nothing behind in its session", arguments: DriverKind.permitted)
    func noAnswer(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program()
            program.onReceived = { message, session in session.addJob("", message) }
            program.onProcess = { job in job.data == Array("last".utf8) ? job.data : nil }
            let server = try startServer(driver, program)
            let client = try PlainClient(to: server.address!)
            for _ in 0..<200 { try client.say("not the last") }
            try client.say("last")
            #expect(client.hear() == "last")
            let session = try #require(server.sessions.first)
            #expect(eventually { session.lock.locked { session.outgoing.isEmpty } })
            try client.socket.abort()
            #expect(try server.stop(within: .zero).jobs?.done == 201)
        }
    }

    @Test(
        "a job that fails, or whose answer is no message, is counted and logged, and the next is answered",
        arguments: DriverKind.permitted)
    func failure(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program()
            program.onReceived = { message, session in
                session.addJob(String(decoding: message, as: UTF8.self))
            }
            program.onProcess = { job in
                switch job.command {
                case "long": return [UInt8](repeating: 7, count: 8_193)
                case "fails": throw SystemError(EIO, attempted: "do it")
                default: return Array(job.command.utf8)
                }
            }
            let server = try startServer(driver, program)
            let client = try PlainClient(to: server.address!)
            for word in ["long", "fails", "goes on"] { try client.say(word) }
            #expect(client.hear() == "goes on")
            try client.socket.abort()
            let last = try server.stop(within: .zero)
            #expect(last.jobs?.done == 3 && last.jobs?.failed == 2, "\(last)")
            let lines = program.lines.locked { $0 }
            for word in ["long", "fails"] {
                #expect(lines.count { $0.contains("job '\(word)' failed: ") } == 1, "\(lines)")
            }
        }
    }
}
