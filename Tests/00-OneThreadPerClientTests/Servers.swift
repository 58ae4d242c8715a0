import CKernel
import Glibc
import Kernel
import OneThreadPerClient
import OneThreadPerClientPitfalls
import Stage
import Testing

/// What all five servers promise.
@Suite("Chapter 00: the servers", .serialized)
struct Chapter00OneThreadPerClientServers {
    @Test("I0.1: every byte comes back, in order, then the end", arguments: Variant.all)
    func echo(server: Variant) async throws {
        let heard = try await onAThread { () throws -> [String?] in
            let server = try server.start()
            defer { server.stop() }
            let caller = try Caller(to: server.address)
            try caller.say("one")
            let first = try caller.hear(3)
            try caller.say("two")
            try caller.socket.shutDownSending()
            return [first, try caller.hear(3), try caller.hear(1)]
        }
        #expect(heard == ["one", "two", nil])
    }

    // A client that sends 24 MiB and reads nothing fills every buffer on the way, so that sends are cut short.
    @Test("I0.1, I0.3, I0.5: who does not listen delays nobody and loses nothing", arguments: Variant.all)
    func slowReader(server: Variant) async throws {
        let result = try await onAThread { () throws -> (other: String?, stream: Stream, asked: Int) in
            let kind = server.kind
            let server = try server.start()
            defer { server.stop() }
            let stream = try Stream(to: server.address, bytes: 24 << 20)
            try stream.sendUntilStuck()
            let asked = server.counters.emptyReceives
            var other: String? = "hello"
            if kind != .turn {
                let caller = try Caller(to: server.address)
                try caller.say("hello")
                other = try caller.hear(5)
            }
            try stream.finish()
            return (other, stream, asked)
        }
        #expect(result.stream.wasStuck)
        // I0.4: who waits for room must not be asked for bytes, over and over, which it has.
        #expect(result.asked < 1_000 || server.kind == .polling)
        #expect(result.other == "hello")
        #expect(result.stream.received == 24 << 20)
        #expect(result.stream.differences == 0)
    }

    @Test("I0.7: a stop ends every thread and closes everything, whoever is connected", arguments: Self.words)
    func stop(kind: String, driver: String) async {
        await #expect(processExitsWith: .success) { [kind, driver] in
            let server = try variant(kind, driver)
            var before = Belongings()
            for round in 0..<21 {
                // The first use may start what lasts, such as the driver of handles without a port.
                if round == 1 {
                    Resources.settle()
                    before = Belongings()
                }
                let running = try server.start()
                let callers = try (0..<10).map { _ in try Caller(to: running.address) }
                try callers[0].say("hello")
                #expect(try callers[0].hear(5) == "hello")
                callers[1].leave()
                try #require(boundedWait(.seconds(10)) { running.stop() })
                #expect(running.counters.present == 0)
            }
            // Twenty rounds that leave one thing each would show. The runtime's own threads come and go, too.
            #expect(eventually { Belongings().exceeds(before) < 5 }, "\(Belongings()), before: \(before)")
        }
    }

    // The server, or one of its threads, waits for room to send when the stop comes.
    @Test("I0.7: a client that does not listen cannot delay a stop", arguments: Variant.all)
    func stopWhileStuck(server: Variant) async throws {
        let result = try await onAThread { () throws -> (wasStuck: Bool, present: Int) in
            let server = try server.start()
            let stream = try Stream(to: server.address, bytes: 24 << 20)
            try stream.sendUntilStuck()
            server.stop()
            return (stream.wasStuck, server.counters.present)
        }
        #expect(result.wasStuck)
        #expect(result.present == 0)
    }

    @Test(
        "a client beyond the limit is reset, counted, and nobody else's problem",
        arguments: Variant.manyAtOnce)
    func limit(server: Variant) async throws {
        let result = try await onAThread { () throws -> (refusal: Bool, still: String?, counters: Counters) in
            var limits = Limits()
            limits.clients = 2
            let server = try server.start(limits)
            defer { server.stop() }
            let callers = try (0..<2).map { _ in try Caller(to: server.address) }
            for caller in callers {
                try caller.say("?")
                _ = try caller.hear(1)
            }
            let refusal = isReset(by: server.address)
            try callers[1].say("still")
            return (refusal, try callers[1].hear(5), server.counters)
        }
        #expect(result.refusal)
        #expect(result.still == "still")
        #expect(result.counters.accepted == 2)
        #expect(result.counters.refused == 1)
    }

    @Test("a client that resets in the middle is counted, and the others are served", arguments: Variant.all)
    func reset(server: Variant) async throws {
        let result = try await onAThread { () throws -> (heard: String?, counted: Bool, counters: Counters) in
            let server = try server.start()
            defer { server.stop() }
            let rude = try Caller(to: server.address)
            try rude.say("?")
            _ = try rude.hear(1)
            try rude.socket.setAbortiveClose()
            rude.leave()
            let polite = try Caller(to: server.address)
            try polite.say("hello")
            let heard = try polite.hear(5)
            let counted = eventually { server.counters.failed == 1 }
            return (heard, counted, server.counters)
        }
        #expect(result.heard == "hello")
        #expect(result.counted)
        #expect(result.counters.present == 1)
    }

    @Test("a place that is taken is refused with the system's error", arguments: Variant.all)
    func taken(server: Variant) async throws {
        let code = try await onAThread { () throws -> Int32? in
            let first = try server.start()
            defer { first.stop() }
            do throws(SystemError) {
                try server.kind.start(on: first.address, driver: server.driver).stop()
                return nil
            } catch {
                return error.code
            }
        }
        #expect(code == EADDRINUSE)
    }

    @Test(
        "without descriptors accepting pauses, and goes on when there are some again", arguments: Self.many)
    func noDescriptors(kind: String, driver: String) async {
        await #expect(processExitsWith: .success) { [kind, driver] in
            let server = try variant(kind, driver).start()
            defer { server.stop() }
            // Callers that need no descriptor any more to connect. Two, since a thread that waits in `accept` has
            // one put by for the first of them.
            let callers = try (0..<2).map { _ in Caller(over: try Socket(boundTo: .loopback())) }
            let first = Caller(over: try Socket(boundTo: .loopback()))
            try connect(first, to: server.address)
            first.leave()
            #expect(eventually { server.counters.accepted == 1 && server.counters.present == 0 })
            let taken = takeAllDescriptors()
            let started = monotonicNanoseconds()
            for caller in callers { try connect(caller, to: server.address) }
            #expect(eventually { server.counters.failedAccepts >= 3 })
            // Between three failures lie two pauses of 50 ms. A server that tries in a loop needs microseconds.
            #expect(monotonicNanoseconds() - started > 90_000_000)
            for descriptor in taken { close(descriptor) }
            for caller in callers {
                try caller.say("late")
                #expect(try caller.hear(4) == "late")
            }
        }
    }

    static let many = words.filter { $0.0 != ServerKind.turn.rawValue }
    static let words = Variant.all.map { ($0.kind.rawValue, $0.driver.rawValue) }
}
