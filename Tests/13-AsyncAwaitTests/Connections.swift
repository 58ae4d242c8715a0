import AsyncAwait
import AsyncAwaitPitfalls
import Framing
import Glibc
import Kernel
import Reordering
import Stage
import Testing

@Suite("Chapter 13: connections as sequences", .serialized)
struct Chapter13AsyncAwaitConnections {
    /// A connection that a task uses, and the client at its other end.
    private func using<Value: Sendable>(
        _ executor: PortExecutor, _ pair: Pair,
        _ body: @escaping @Sendable (AsyncConnection) async throws -> Value
    ) throws -> Started<Result<Value, any Error>> {
        let connection = try executor.adopt(pair.server)
        return executor.start { await Result { () async throws in try await connection.use(body) } }
    }

    @Test(
        "the end ends the loop, a reset is thrown behind what came before it", arguments: DriverKind.permitted
    )
    func ends(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let (ended, reset) = (try Pair(), try Pair())
            let count: @Sendable (AsyncConnection) async throws -> Int = { connection in
                var bytes = 0
                for try await chunk in connection.chunks { bytes += chunk.contents.count }
                return bytes
            }
            let first = try using(executor, ended, count)
            try ended.client.say("hello")
            try ended.client.shutDownSending()
            #expect(try first.value(on: executor)?.get() == 5)
            let second = try using(executor, reset, count)
            try reset.client.say("hello")
            #expect(eventually { executor.hub.counters.traffic.bytesReceived == 10 })
            try reset.client.abort()
            #expect(throws: SystemError(ECONNRESET, attempted: "")) { try second.value(on: executor)!.get() }
            #expect(eventually { executor.hub.counters.alive == 0 })
            #expect(executor.hub.counters.chunks.inUse == 0)
            #expect(executor.stop())
        }
    }

    // I13.6
    @Test(
        "one loop at a time: a second one, and a second wait, are refused with a word",
        arguments: DriverKind.permitted)
    func oneConsumer(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            let (codes, isWaiting) = (Gate(count: 2), Latch())
            let task = try using(executor, pair) { connection in
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask {
                        for try await _ in connection.chunks { isWaiting.open() }
                    }
                    await isWaiting.wait()
                    // It has had its byte, and is about to wait for another.
                    while !connection.isAwaited { await Task.yield() }
                    do { for try await _ in connection.chunks {} } catch {
                        if (error as? SystemError)?.code == EALREADY { codes.open() }
                    }
                    let second = await outcome { () async throws(SystemError) in try await connection.next() }
                    if code(second) == EALREADY { codes.open() }
                    try await group.waitForAll()
                }
                // Behind the first loop there may be another.
                for try await _ in connection.chunks {}
            }
            try pair.client.say("x")
            #expect(codes.pass())
            try pair.client.shutDownSending()
            #expect(throws: Never.self) { try task.value(on: executor)!.get() }
            executor.stop()
        }
    }

    @Test(
        "messages in any pieces; what is none is thrown behind those before it",
        arguments: DriverKind.permitted)
    func frames(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver) { $0.chunkCapacity = 16 }
            let (whole, cut, wrong) = (try Pair(), try Pair(), try Pair())
            let read: @Sendable (AsyncConnection) async throws -> String = { connection in
                var all = ""
                do {
                    for try await line in connection.frames(Lines(maximumLength: 20)) {
                        all += String(decoding: line, as: UTF8.self) + "|"
                    }
                } catch let error as FrameError {
                    all += "\(error)"
                }
                return all
            }
            let first = try using(executor, whole, read)
            try whole.client.say("one\ntwo\na line of 20 bytes .\n\n")
            try whole.client.shutDownSending()
            #expect(try first.value(on: executor)?.get() == "one|two|a line of 20 bytes .||")
            let second = try using(executor, cut, read)
            try cut.client.say("one\ntw")
            try cut.client.shutDownSending()
            #expect(
                try second.value(on: executor)?.get()
                    == "one|offset 6: the stream ended after 2 bytes of a frame")
            let third = try using(executor, wrong, read)
            try wrong.client.say("one\n" + String(repeating: "x", count: 30))
            #expect(
                try third.value(on: executor)?.get() == "one|offset 24: no end of line within 20 bytes")
            executor.stop()
        }
    }

    // I13.5
    @Test(
        "a cancelled child gives the bytes to who asks next; a cancelled scope gives out what has come",
        arguments: DriverKind.permitted)
    func cancels(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            let (isLate, isThere) = (Gate(), Latch())
            let task = try using(executor, pair) { connection in
                // A child that gives up, while the scope goes on.
                let first = await outcome { () async throws(SystemError) in
                    try await withDeadline(after: .milliseconds(20)) { () async throws(SystemError) in
                        try await connection.next()
                    }
                }
                isLate.open()
                let chunk = try await connection.next()
                let text = chunk.map { String(decoding: $0.contents, as: UTF8.self) } ?? ""
                // The scope's own task is cancelled now, with bytes in the inbox.
                await isThere.wait()
                let rest =
                    try await connection.next().map { String(decoding: $0.contents, as: UTF8.self) } ?? ""
                let last = await outcome { () async throws(SystemError) in try await connection.next() }
                return "\(code(first) ?? 0) \(text) \(rest) \(code(last) ?? 0)"
            }
            isLate.pass()
            try pair.client.say("late")
            #expect(eventually { executor.hub.counters.traffic.bytesReceived == 4 })
            try pair.client.say("rest")
            #expect(eventually { executor.hub.counters.traffic.bytesReceived == 8 })
            task.task.cancel()
            isThere.open()
            let words = try task.value(on: executor)?.get()
            #expect(words == "\(ETIMEDOUT) late rest \(ECANCELED)")
            executor.stop()
        }
    }

    // I13.7
    @Test(
        "an awaited send waits for its reader, is whole, and ends with the connection",
        arguments: DriverKind.permitted)
    func sends(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let (reading, silent) = (try Pair(), try Pair())
            let big = (0..<2_000_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
            let first = try using(executor, reading) { connection in
                try await connection.send(big)
                try await connection.send([], as: LengthPrefixed(.four))
                try await connection.send([1, 2], as: LengthPrefixed(.two))
            }
            #expect(try reading.client.hearBytes(big.count) == big)
            #expect(try reading.client.hearBytes(8) == [0, 0, 0, 0, 0, 2, 1, 2])
            try reading.client.shutDownSending()
            #expect(throws: Never.self) { try first.value(on: executor)!.get() }
            let second = try using(executor, silent) { connection in
                while true { try await connection.send(big) }
            }
            #expect(eventually { silent.client.unread > 0 })
            #expect(!second.over.pass(within: .milliseconds(50)))
            try silent.client.abort()
            #expect(throws: SystemError(ECONNRESET, attempted: "")) { try second.value(on: executor)!.get() }
            #expect(executor.stop())
        }
    }

    @Test("a client connects, and one that finds nobody hears why", arguments: DriverKind.permitted)
    func connects(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let server = try makeExecutor(driver)
            let address = try server.hub.listen { _ in Echo() }
            let talk = executor.start {
                await outcome { () async throws(SystemError) in
                    try await executor.connect(to: address).use { (connection) async throws(SystemError) in
                        try await connection.send(Array("hello".utf8))
                        var heard: [UInt8] = []
                        while heard.count < 5, let chunk = try await connection.next() {
                            heard += Array(chunk.contents)
                        }
                        return heard
                    }
                }
            }
            #expect(try talk.value(on: executor)?.get() == Array("hello".utf8))
            server.stop()
            // Held, or somebody else might listen there by then.
            let deaf = try Socket(boundTo: .loopback())
            defer { deaf.close() }
            let free = try deaf.localAddress
            let refused = executor.start {
                await outcome { () async throws(SystemError) in
                    try await executor.connect(to: free).use { _ in }
                }
            }
            #expect(code(refused.value(on: executor)) == ECONNREFUSED)
            #expect(executor.stop())
            #expect(executor.hub.counters.alive == 0)
        }
    }

    // I13.6
    @Test("clients beyond the bound of a listener are reset and counted; its end closes those that wait")
    func bound() async throws {
        try await onAThread {
            let executor = try makeExecutor(.epoll)
            let listener = try AsyncListener(executor: executor, maximumWaiting: 3)
            // A reset may be quicker than the client's look at its new connection.
            let clients = (0..<5).compactMap { _ in try? Socket.connected(to: listener.address) }
            #expect(eventually { listener.turnedAway == 2 })
            #expect(
                eventually { clients.count { $0.isEnded(within: .milliseconds(10)) } == clients.count - 3 })
            listener.stop()
            #expect(clients.allSatisfy { $0.isEnded() })
            let rest = executor.start {
                var count = 0
                for await _ in listener.connections { count += 1 }
                return count
            }
            #expect(rest.value(on: executor) == 0)
            #expect(executor.stop())
        }
    }
}
