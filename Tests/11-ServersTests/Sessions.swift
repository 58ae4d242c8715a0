import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import Reordering
import Stage
import Testing
import WorkerPools

@testable import Servers
@testable import ServersPitfalls

@Suite("Chapter 11: sessions", .serialized)
struct Chapter11ServersSessions {
    @Test("callbacks come in their order, each once", arguments: DriverKind.permitted)
    func order(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program.echo()
            let server = try startServer(driver, program)
            let client = try PlainClient(to: server.address!)
            #expect(client.isEchoed())
            try client.socket.shutDownSending()
            #expect(client.socket.isEnded())
            #expect(eventually { program.released.value == 1 })
            let last = try server.stop()
            #expect(
                program.story.locked { $0 } == [
                    "started", "admits", "made", "connected", "disconnected: ended", "stopped",
                ])
            #expect(
                last.ends == [.closed(.ended): 1] && last.messagesIn == 1 && last.messagesOut == 1
                    && last.isQuiet)
        }
    }

    // I11.4
    @Test("a session that is ended while it is paused is paused no longer", arguments: DriverKind.permitted)
    func endedWhilePaused(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program()
            program.onConnected = { try? $0.socket?.setBufferSizes(send: 65_536) }
            program.onReceived = { message, session in try? session.send(message.span.bytes) }
            let server = try startServer(driver, program)
            let client = try PlainClient(to: server.address!)
            try client.socket.setBufferSizes(receive: 65_536)
            let frames = (0..<1_000).flatMap { _ in PlainClient.frame([UInt8](repeating: 7, count: 2_000)) }
            let writer = startThread("writer") { try? client.socket.say(frames, within: .seconds(20)) }
            #expect(eventually { server.statistics.paused == 1 })
            // What is on its way comes back after this, and the handler does not hear of it any more.
            try #require(server.sessions.first).disconnect(.abortive)
            #expect(eventually { server.connectionCount == 0 && server.statistics.paused == 0 })
            writer.join()
            let last = try server.stop()
            #expect(last.isQuiet, "\(last)")
        }
    }

    // I11.4, I5.12
    @Test(
        "a file is read into larger buffers, messages never are",
        arguments: DriverKind.permitted)
    func growth(driver: DriverKind) async throws {
        try await onAThread {
            let folder = try Folder()
            defer { folder.remove() }
            let server = try startServer(driver, Program()) { $0.endpoint.files = folder.options("server") }
            func larger() -> LargerBuffers.Counters { server.current!.hub.largerBuffers.counters }
            // Where files are on a byte in front says whose a message is.
            let flooder = try PlainClient(to: server.address!)
            let frames = (0..<1_000).flatMap { _ in PlainClient.frame([UInt8](repeating: 0, count: 1_000)) }
            try flooder.socket.say(frames, within: .seconds(20))
            #expect(eventually { server.statistics.messagesIn == 1_000 })
            #expect(larger().peak == 0)
            try flooder.socket.abort()

            let finished = Gate()
            let other = Program()
            other.onFile = { result in if case .success = result { finished.open() } }
            let client = try startClient(driver, to: server.address!, other) {
                $0.endpoint.files = folder.options("client")
            }
            let path = try folder.make("client", "up", 600_000)
            #expect(eventually { client.links.first?.session != nil })
            try client.links.first!.session!.sendFile(path)
            #expect(finished.pass(within: .seconds(60)))
            #expect(larger().peak >= LargerBuffers.sizes[1])
            #expect(eventually { larger().inUse == 0 && server.statistics.filesDone == 1 })
            #expect(server.statistics.filesUnderWay == 0 && server.statistics.filesFailed == 0)
            let isWhole = folder.takes("server", "up", Folder.bytes(600_000))
            #expect(isWhole)
            try client.stop(within: .zero)
            #expect(try server.stop(within: .zero).isQuiet)
        }
    }

    @Test(
        "over IPv6, and on a listener for both families, where IPv4 stays IPv4",
        arguments: DriverKind.permitted)
    func families(driver: DriverKind) async throws {
        try await onAThread {
            guard Address.loopbacks.count == 2 else { return }
            let seen = Guarded<[String]>([])
            let program = Program.echo()
            program.onConnected = { session in seen.locked { $0.append(session.address?.host ?? "") } }
            let server = try startServer(driver, program) {
                $0.addresses = [.loopback6(), .any6()]
                $0.endpoint.maximumPerAddress = 1
            }
            let six = try PlainClient(to: server.addresses[0])
            #expect(six.isEchoed())
            let four = try PlainClient(to: .loopback(port: server.addresses[1].port))
            #expect(four.isEchoed())
            #expect(seen.locked { $0 } == ["::1", "127.0.0.1"])
            #expect(
                try PlainClient(to: .loopback(port: server.addresses[1].port)).hear()
                    == "full: 1 connections from one address")
            try server.stop(within: .zero)
        }
    }

    @Test(
        "several codecs on one endpoint; it listens, and connects to several servers",
        arguments: DriverKind.permitted)
    func manyRoles(driver: DriverKind) async throws {
        try await onAThread {
            let servers = try (0..<2).map { _ in try startServer(driver) }
            let heard = Counter()
            let program = Program()
            program.onReceived = { message, session in
                if session.link != nil { heard.add() } else { try? session.reply(message.span.bytes) }
            }
            let both = try startServer(driver, program)
            let lines = try both.listen(on: .loopback(), codec: Lines())
            let links = try servers.map { try both.connect(to: $0.address!) }
            let person = try Socket.connected(to: lines)
            try person.say("hello\n")
            #expect(try person.hear(6) == "hello\n")
            #expect(try PlainClient(to: both.address!).isEchoed())
            for link in links { try link.send(Array("hello".utf8).span.bytes) }
            #expect(eventually { heard.value == 2 })
            #expect(both.connectionCount == 4 || eventually { both.connectionCount == 3 })
            #expect(try both.stop(within: .zero).isQuiet)
            for server in servers { #expect(try server.stop(within: .zero).isQuiet) }
        }
    }

    // I11.6
    @Test(
        "who says nothing, half a message, or takes nothing, is ended, and the statistics say why",
        arguments: DriverKind.permitted)
    func limits(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program()
            let expired = Guarded<[Limit]>([])
            program.onExpired = { limit, session in
                expired.locked { $0.append(limit) }
                try? session.send("too late")
                return limit == .handshake
            }
            program.onReceived = { message, session in
                let long = [UInt8](repeating: 1, count: 8_000)
                for _ in 0..<100 { try? session.send(long.span.bytes) }
            }
            program.onConnected = { try? $0.socket?.setBufferSizes(send: 4_096) }
            let server = try startServer(driver, program) {
                $0.endpoint.limits.handshake = .milliseconds(150)
                $0.endpoint.limits.message = .milliseconds(150)
                $0.endpoint.limits.stall = .milliseconds(400)
            }
            let silent = try PlainClient(to: server.address!)
            #expect(silent.hear() == "too late" && silent.socket.isEnded())
            silent.socket.close()
            let half = try PlainClient(to: server.address!)
            try half.socket.setBufferSizes(receive: 4_096)
            try half.say("a whole one")
            #expect(eventually { server.statistics.ends[.timedOut(.stall)] == 1 })
            half.socket.close()
            #expect(eventually { server.connectionCount == 0 })
            let last = try server.stop()
            #expect(
                last.ends[.timedOut(.handshake)] == 1 && last.ends[.timedOut(.stall)] == 1, "\(last.ends)")
            #expect(expired.locked { $0 } == [.handshake])
        }
    }

    @Test("half a message is ended by its limit", arguments: DriverKind.permitted)
    func halfMessage(driver: DriverKind) async throws {
        try await onAThread {
            let server = try startServer(driver) { $0.endpoint.limits.message = .milliseconds(100) }
            let client = try PlainClient(to: server.address!)
            #expect(client.isEchoed())
            try client.socket.say([0, 0, 0, 9, 1])
            #expect(client.socket.isEnded())
            #expect(try server.stop().ends[.timedOut(.message)] == 1)
        }
    }

    // I11.7
    @Test(
        "a message whose connection was cut is sent again, and handed over once",
        arguments: DriverKind.permitted)
    func delivery(driver: DriverKind) async throws {
        try await onAThread {
            let (heard, said) = (Guarded<[String]>([]), Counter())
            let program = Program()
            program.onReceived = { message, session in
                let text = String(decoding: message, as: UTF8.self)
                heard.locked { $0.append(text) }
                // The third comes, and its answer is lost with the connection.
                if text == "3", said.add() == 1 { session.disconnect(.abortive) }
            }
            let server = try startServer(driver, program) { $0.endpoint.acknowledges = true }
            let acknowledged = Counter()
            let ears = Program()
            ears.onAcknowledged = { _ in acknowledged.add() }
            let client = try startClient(driver, to: server.address!, ears) {
                $0.endpoint.acknowledges = true
            }
            for number in 1...100 {
                try client.links[0].sendAcknowledged(Array("\(number)".utf8).span.bytes, token: number)
            }
            #expect(eventually { acknowledged.value == 100 })
            let all = heard.locked { $0 }
            #expect(all == (1...100).map { "\($0)" }, "\(all)")
            #expect(server.statistics.repeated >= 1 && client.statistics.acknowledged == 100)
            #expect(try client.stop().isQuiet && server.stop().isQuiet)
        }
    }

    // I11.4
    @Test(
        "jobs are answered in order, as messages; more of them than there is room for hold their client back",
        arguments: DriverKind.permitted)
    func jobs(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program()
            program.onReceived = { message, session in
                session.addJob(String(decoding: message, as: UTF8.self))
            }
            program.onProcess = { job in Array("done \(job.command)".utf8) }
            let server = try startServer(driver, program) {
                $0.endpoint.jobCapacity = 4
                $0.endpoint.logicalWorkers = 3
            }
            let client = try PlainClient(to: server.address!)
            for number in 0..<200 { try client.say("\(number)") }
            let answers = (0..<200).map { _ in client.hear() ?? "" }
            #expect(answers == (0..<200).map { "done \($0)" })
            let last = try server.stop(within: .zero)
            #expect(last.jobs?.done == 200 && last.isQuiet, "\(last)")
        }
    }

    // I11.3
    @Test(
        "a callback that stops its endpoint is told so; stop waits for it from elsewhere",
        arguments: DriverKind.permitted)
    func stopInside(driver: DriverKind) async throws {
        try await onAThread {
            let told = Guarded<[EndpointError]>([])
            let place = Guarded<Server?>(nil)
            let tryIt: @Sendable () -> Void = {
                do throws(EndpointError) { try place.locked { $0 }?.stop() } catch {
                    told.locked { $0.append(error) }
                }
            }
            let program = Program()
            program.onReceived = { _, session in
                tryIt()
                session.addJob("stop")
            }
            program.onProcess = { _ in
                tryIt()
                return Array("done".utf8)
            }
            let server = try startServer(driver, program)
            place.locked { $0 = server }
            let client = try PlainClient(to: server.address!)
            try client.say("stop")
            #expect(client.hear() == "done")
            #expect(told.locked { $0 } == [.wouldWaitForItself, .wouldWaitForItself])
            place.locked { $0 = nil }
            #expect(try server.stop().isQuiet)
        }
    }

    @Test("what is being answered when stop begins still goes out", arguments: DriverKind.permitted)
    func lastAnswer(driver: DriverKind) async throws {
        try await onAThread {
            let (inside, go) = (Gate(), Gate())
            let program = Program()
            program.onReceived = { message, session in
                inside.open()
                go.pass()
                try? session.reply(message.span.bytes)
            }
            let server = try startServer(driver, program)
            let client = try PlainClient(to: server.address!)
            try client.say("the last question")
            #expect(inside.pass())
            let stopper = startThread("stop") { _ = try? server.stop() }
            #expect(eventually { !server.isStarted })
            // Its sessions have been told to finish by then.
            #expect(eventually { server.sessions.allSatisfy { $0.statistics.ending == .stopping } })
            go.open()
            #expect(client.hear() == "the last question")
            client.socket.close()
            stopper.join()
        }
    }

    @Test("a hundred starts leave no session, and every counter at zero", arguments: DriverKind.permitted)
    func manyStarts(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program.echo()
            var options = ServerOptions()
            options.endpoint.port.driver = driver
            let server = Server(options, handler: program)
            for _ in 0..<(isSanitized ? 20 : 100) {
                try server.start()
                let client = try PlainClient(to: server.address!)
                #expect(client.isEchoed())
                #expect(try server.stop(within: .zero).isQuiet)
            }
            #expect(program.made.value == program.released.value)
        }
    }
}
