import Contexts
import Foundation
import Framing
import Glibc
import Kernel
import Servers
import ServersPitfalls
import Stage
import Testing

@testable import ServersDemo

/// What is typed, and what the program does from its first line to its last.
@Suite("Chapter 11: console and program", .serialized)
struct ConsoleTests {
    private func said(_ console: Console, _ words: String, _ lines: Guarded<[String]>) throws -> [String] {
        lines.locked { $0 = [] }
        try console.perform(words.split(separator: " ").map(String.init))
        return lines.locked { $0 }
    }

    private func refusal(_ console: Console, _ words: String) -> String? {
        do {
            try console.perform(words.split(separator: " ").map(String.init))
            return nil
        } catch { return "\(error)" }
    }

    @Test(
        "stop PORT closes one listener; the others and those who are in go on",
        arguments: DriverKind.permitted)
    func stopOne(driver: DriverKind) async throws {
        try await onAThread {
            let server = try startServer(driver)
            let lines = try server.listen(on: .loopback(), codec: Lines())
            let person = try Socket.connected(to: lines)
            #expect(person.isAnswered("hello\n"))
            let output = Guarded<[String]>([])
            let console = Console(server, .init()) { line in output.locked { $0.append(line) } }
            let told = try said(console, "stop \(lines.port)", output)
            #expect(told == ["\(lines) takes no more clients in; those that are in stay"])
            #expect(server.addresses == [server.address!])
            #expect((try? Socket.connected(to: lines)) == nil)
            #expect(person.isAnswered("still here\n"))
            let other = try PlainClient(to: server.address!)
            #expect(other.isEchoed())
            // Both are waited for, with as many reads each as the options say.
            let reads = 2 * server.options.pendingReads
            #expect(eventually { server.statistics.pendingReads == reads })
            try other.socket.abort()
            #expect(eventually { server.statistics.pendingReads == reads / 2 })
            #expect(
                refusal(console, "stop \(lines.port)")
                    == "it does not listen at \(lines.port); it does at \(server.address!.port)")
            #expect(throws: EndpointError.self) { try server.stopListening(at: lines) }
            // The port is free again.
            #expect(try server.listen(on: lines, codec: Lines()) == lines)
            #expect(try server.stop(within: .zero).isQuiet)
        }
    }

    @Test(
        "random on ends sessions by chance until random off, in a server that is started again too",
        arguments: DriverKind.permitted)
    func random(driver: DriverKind) async throws {
        try await onAThread {
            let server = try startServer(driver) { $0.endpoint.limits.idle = .milliseconds(100_000) }
            // Soon, so that the test does not wait for two seconds on average.
            var switches = Console.Switches()
            switches.mean = .milliseconds(1)
            let console = Console(server, switches) { _ in }
            #expect(refusal(console, "random perhaps") == "perhaps is neither on nor off")
            // It may be ended before it knows that it is connected.
            func isThrownOut() -> Bool {
                guard let client = try? PlainClient(to: server.address!) else { return true }
                defer { client.socket.close() }
                return client.socket.isEnded()
            }
            for _ in 0..<2 {
                // A second time is no second clock.
                try console.perform(["random", "on"])
                #expect(isThrownOut())
                try server.stop()
                try server.start()
            }
            #expect(isThrownOut())
            try console.perform(["random", "off"])
            let last = try PlainClient(to: server.address!)
            #expect(last.isEchoed() && !last.socket.isEnded(within: .milliseconds(700)))
            try server.stop(within: .zero)
        }
    }

    @Test("lines and the page are there again after stop and start", arguments: DriverKind.permitted)
    func doors(driver: DriverKind) async throws {
        try await onAThread {
            let server = try startServer(driver)
            let watched = Counter()
            let doors = Doors(server, page: .loopback()) { _ in watched.add() }
            try doors.open()
            let output = Guarded<[String]>([])
            let console = Console(server, .init(), opens: { try doors.open() }) { line in
                output.locked { $0.append(line) }
            }
            let (lines, page) = (doors.lines, try #require(doors.page))
            for turn in 1...2 {
                let person = try Socket.connected(to: lines)
                #expect(person.isAnswered("hello\n"))
                let browser = try Socket.connected(to: page)
                try browser.say("GET /statistics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                #expect(try browser.hear(15) == "HTTP/1.1 200 OK")
                let rest = try browser.hear(2_000, within: .milliseconds(300))
                for figure in ["\"in the driver\":", "\"parked\":", "\"blocked\":", "\"reads pending\":"] {
                    #expect(rest.contains(figure), "\(figure)")
                }
                #expect(watched.value == turn)
                // Otherwise the stop would wait for them.
                try person.abort()
                try browser.abort()
                if turn == 1 {
                    _ = try said(console, "stop", output)
                    _ = try said(console, "start", output)
                    #expect(doors.lines == lines && doors.page == page)
                }
            }
            try server.stop(within: .zero)
        }
    }

    @Test("what is told of a server twice a second has a bound", arguments: DriverKind.permitted)
    func figuresAreBounded(driver: DriverKind) async throws {
        try await onAThread {
            let server = try startServer(driver)
            let watching = Watching(server, name: "a server")
            let clients = try (0..<Watching.rowLimit + 10).map { _ in try PlainClient(to: server.address!) }
            #expect(eventually { server.connectionCount == clients.count })
            for number in 0..<100 { watching.note("\(number)") }
            let parsed = try JSONSerialization.jsonObject(with: Data("\(watching.figures)".utf8))
            let figures = try #require(parsed as? [String: Any])
            #expect(figures["connections"] as? Int == clients.count)
            #expect((figures["rows"] as? [[String: Any]])?.count == Watching.rowLimit)
            #expect(figures["lines"] as? [String] == (80..<100).map { "\($0)" })
            for client in clients { try client.socket.abort() }
            try server.stop(within: .zero)
        }
    }

    @Test(
        "the program writes its number when it listens, and removes it at the end, unless another has written its own"
    )
    func pidFile() async throws {
        try await onAThread {
            let program = try #require(Child.product("11-server-and-client"))
            let path = "/tmp/server-\(getpid()).pid"
            defer { unlink(path) }
            for isTaken in [false, true] {
                let (child, address) = try serving(program, ["--pid-file", path])
                let client = try PlainClient(to: address)
                #expect(client.isEchoed())
                try client.socket.abort()
                let number = Int32(((try? contents(of: path)) ?? "").split(separator: "\n").first ?? "")
                #expect(number != nil && kill(number!, 0) == 0)
                if isTaken { try writeFile(path, "1\n") }
                child.send(signal: SIGTERM)
                #expect(child.wait(within: .seconds(20)).status == 0)
                #expect((access(path, F_OK) == 0) == isTaken)
            }
        }
    }

    private func serving(_ program: String, _ more: [String] = []) throws -> (child: Child, address: Address)
    {
        let child = try Child(program, ["--plain", "--serve", "0"] + more)
        let line = child.line(startingWith: "listening on ", within: .seconds(20))
        return (child, try #require(line.flatMap { Address(written: $0.dropFirst("listening on ".count)) }))
    }

    @Test("another terminal ends the program by its port, and its sessions end in good order")
    func stopByPort() async throws {
        try await onAThread {
            let program = try #require(Child.product("11-server-and-client"))
            let (child, address) = try serving(program)
            let client = try PlainClient(to: address)
            #expect(client.isEchoed())
            let stop = try Child(program, ["--plain", "stop", "\(address.port)"])
            // The server has said its last word, and waits for the client's. So does the other terminal.
            #expect(client.socket.isEnded(within: .seconds(20)))
            #expect(stop.line(startingWith: "stopped", within: .milliseconds(100)) == nil)
            client.socket.close()
            let told = stop.wait(within: .seconds(30))
            #expect(told.status == 0 && told.output.hasSuffix("at port \(address.port)\n"), "\(told)")
            let server = child.wait(within: .seconds(20))
            #expect(server.status == 0 && server.output.contains("✓ everything is back"), "\(server)")
            let again = try Child.run(program, ["stop", "\(address.port)"], within: .seconds(30))
            #expect(again.status == 1)
            #expect(
                again.errors == "11-server-and-client: no server of this program listens at port "
                    + "\(address.port); '--serve \(address.port)' keeps one up\n")
            for words in [["stop"], ["stop", "0"], ["stop", "here"], ["stop", "1", "2"]] {
                let refused = try Child.run(program, words, within: .seconds(30))
                #expect(refused.status == 2 && refused.errors.contains("Name its port"), "\(refused)")
            }
        }
    }

    @Test("one that does not end in time is named, and has been asked; a second program at that port says so")
    func stopInTime() async throws {
        try await onAThread {
            let program = try #require(Child.product("11-server-and-client"))
            let (child, address) = try serving(program)
            let second = try Child(
                program, ["--plain", "--serve", "\(address.port)", "--address", "127.0.0.2"])
            let line = second.line(startingWith: "another terminal cannot stop it", within: .seconds(20))
            #expect(line?.contains("be found by 'stop \(address.port)'") == true)
            child.send(signal: SIGSTOP)
            let error = #expect(throws: BadCommand.self) {
                try ServingName(port: address.port).stop(within: .milliseconds(50))
            }
            #expect(error?.description.contains("has not ended within 50 ms; 'kill -KILL ") == true)
            child.send(signal: SIGCONT)
            #expect(child.wait(within: .seconds(20)).status == 0)
            second.send(signal: SIGTERM)
            #expect(second.wait(within: .seconds(20)).status == 0)
        }
    }

    // Descriptors are the process's: it has one of its own.
    @Test("a name that is taken, and one that nobody has, leave no descriptor behind")
    func nameTaken() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            // So long as they listen here no other server does.
            let places = try (0..<2).map { _ in try Socket.listener(on: .loopback()) }
            let names = try places.map { ServingName(port: try $0.localAddress.port) }
            try names[0].take()
            let before = Resources.openDescriptors
            for _ in 0..<3 {
                let error = #expect(throws: SystemError.self) { try names[0].take() }
                #expect(error?.code == EADDRINUSE)
                #expect(throws: BadCommand.self) { try names[1].stop(within: .zero) }
            }
            #expect(Resources.openDescriptors == before)
            for place in places { place.close() }
        }
    }

    @Test("a server of another user is not stopped", .enabled(if: geteuid() == 0))
    func stopOfAnother() async throws {
        await #expect(processExitsWith: .success) {
            let program = Child.product("11-server-and-client")!
            let child = try Child(program, ["--plain", "--serve", "0"])
            let line = child.line(startingWith: "listening on ", within: .seconds(20))!
            let address = Address(written: line.dropFirst("listening on ".count))!
            // Another user in all that counts; only what it was is kept, so that it can be that again.
            guard setreuid(65_534, 0) == 0, seteuid(65_534) == 0 else { fail("cannot be another user") }
            var words = ""
            do { _ = try ServingName(port: address.port).stop(within: .seconds(5)) } catch {
                words = "\(error)"
            }
            guard seteuid(0) == 0, setreuid(0, 0) == 0 else { fail("cannot be root again") }
            child.send(signal: SIGTERM)
            let ending = child.wait(within: .seconds(20))
            guard ending.status == 0, words.hasSuffix("is another user's; stop it as that user") else {
                fail("\(words); \(ending)")
            }
            exit(0)
        }
    }

    // I11.6
    @Test("a limit that ends a session is one line of the log", arguments: DriverKind.permitted)
    func oneLine(driver: DriverKind) async throws {
        try await onAThread {
            let program = Program.echo()
            let server = try startServer(driver, program) {
                $0.endpoint.limits.handshake = .milliseconds(50)
                $0.endpoint.log = .information
            }
            let silent = try PlainClient(to: server.address!)
            #expect(silent.socket.isEnded())
            #expect(try server.stop().isQuiet)
            let lines = program.lines.locked { $0 }
            #expect(lines.count { $0.contains("timed out (handshake)") } == 1, "\(lines)")
        }
    }
}
