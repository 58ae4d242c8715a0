import AsyncAwait
import AsyncAwaitPitfalls
import Glibc
import Kernel
import Reordering
import Stage
import Testing

@Suite("Chapter 13: awaited operations", .serialized)
struct Chapter13AsyncAwaitOperations {
    // I13.3, I13.4
    @Test("accept, connect, send, receive, disconnect: each in one line", arguments: DriverKind.permitted)
    func sockets(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let listener = try Socket.listener(on: .loopback())
            let address = try listener.localAddress
            let server = executor.start {
                await outcome { () async throws(SystemError) in
                    let operation = AwaitedOperation(on: executor)
                    let client = try await listener.accept(with: operation)
                    var total = 0
                    while true {
                        let count = try await client.receive(into: operation)
                        if count == 0 { break }
                        total += count
                        try await client.send(from: operation, count: count)
                    }
                    try await client.disconnect(with: operation)
                    return total
                }
            }
            let client = executor.start {
                await outcome { () async throws(SystemError) in
                    let operation = AwaitedOperation(on: executor)
                    let socket = try Socket(boundTo: .loopback())
                    try await socket.connect(to: address, with: operation)
                    var echo = ""
                    for word in ["one", "two", "three"] {
                        let count = try operation.fill(Array(word.utf8))
                        try await socket.send(from: operation, count: count)
                        var heard = 0
                        while heard < count {
                            let more = try await socket.receive(into: operation)
                            echo += String(decoding: try operation.copy(more), as: UTF8.self)
                            heard += more
                        }
                    }
                    try await socket.disconnect(with: operation)
                    return echo
                }
            }
            #expect(try client.value(on: executor)?.get() == "onetwothree")
            #expect(try server.value(on: executor)?.get() == 11)
            #expect(executor.stop())
            #expect(executor.counters.awaited == 0)
            #expect(executor.counters.strayJobs == 0)
        }
    }

    @Test("files: read and write at any place, the end of file, transmit", arguments: DriverKind.permitted)
    func files(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let path = "/tmp/chapter13-\(getpid())-\(driver.rawValue)"
            defer { unlink(path) }
            let pair = try Pair()
            let result = executor.start {
                await outcome { () async throws(SystemError) in
                    let file = try File(path, for: .writing)
                    let operation = AwaitedOperation(on: executor)
                    try operation.fill(Array("world".utf8))
                    try await file.write(at: 6, from: operation, count: 5)
                    try operation.fill(Array("hello ".utf8))
                    try await file.write(at: 0, from: operation, count: 6)
                    let copy = try File(path)
                    let count = try await copy.read(at: 0, into: operation)
                    let text = String(decoding: try operation.copy(count), as: UTF8.self)
                    try await pair.server.transmit(copy, offset: 6, with: operation)
                    do throws(SystemError) {
                        _ = try await copy.read(at: 11, into: operation)
                    } catch {
                        return text + " \(error.code == SystemError.endOfFile)"
                    }
                    return text
                }
            }
            #expect(try result.value(on: executor)?.get() == "hello world true")
            #expect(try pair.client.hear(5) == "world")
            executor.stop()
        }
    }

    // I13.8
    @Test("what is impossible is refused with a word, and leaves the operation idle")
    func refusals() async throws {
        try await onAThread {
            let (executor, other) = (try makeExecutor(.epoll), try makeExecutor(.epoll))
            let (pair, foreign) = (try Pair(), try Pair())
            try other.take(foreign.server)
            let operation = AwaitedOperation(on: executor, capacity: 8)
            func receive(_ socket: Socket) -> Int32? {
                code(
                    executor.start {
                        await outcome { () async throws(SystemError) in
                            try await socket.receive(into: operation)
                        }
                    }.value(on: executor))
            }
            func send(_ count: Int) -> Int32? {
                code(
                    executor.start {
                        await outcome { () async throws(SystemError) in
                            try await pair.server.send(from: operation, count: count)
                        }
                    }.value(on: executor))
            }
            #expect(receive(foreign.server) == EINVAL)
            #expect(send(9) == EINVAL)
            #expect(send(-1) == EINVAL)
            #expect(receive(Socket()) == ENOTCONN)
            executor.endOperations()
            #expect(receive(pair.server) == EBADF)
            #expect(executor.counters.awaited == 0)
            executor.stop()
            other.stop()
        }
    }

    // I13.8
    @Test(
        "the end of an executor ends what tasks await, also without their being cancelled",
        arguments: DriverKind.permitted)
    func end(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let pairs = try Pair.several(20)
            let waiting = pairs.map { pair in
                executor.start {
                    let operation = AwaitedOperation(on: executor)
                    return await outcome { () async throws(SystemError) in
                        try await pair.server.receive(into: operation)
                    }
                }
            }
            #expect(eventually { executor.counters.awaited == 20 })
            executor.endOperations()
            for task in waiting { #expect(code(task.value(on: executor)) == ECANCELED) }
            #expect(executor.stop())
        }
    }

    // I13.1
    @Test("a job that comes when the port is closed is run all the same, and counted")
    func stray() async throws {
        try await onAThread {
            let executor = try makeExecutor(.epoll)
            let (latch, hasBegun) = (Latch(), Gate())
            let task = executor.start {
                hasBegun.open()
                await latch.wait()
                return 7
            }
            hasBegun.pass()
            executor.stop()
            latch.open()
            // Swift's own threads may have other tests to run.
            #expect(task.over.pass(within: .seconds(50)))
            #expect(executor.counters.strayJobs > 0)
        }
    }

    // I13.1
    @Test("an executor may go with its last task, at the moment when that is made ready")
    func lastTask() async throws {
        try await onAThread {
            let hub = try StreamHub()
            for _ in 0..<500 {
                let (latch, isThere, over) = (Latch(), Gate(), Gate())
                // Nobody keeps the executor but the task.
                Task(executorPreference: PortExecutor(on: hub)) {
                    isThere.open()
                    await latch.wait()
                    over.open()
                }
                isThere.pass()
                latch.open()
                #expect(over.pass())
            }
            hub.stop()
        }
    }

    // I13.5
    @Test(
        "a deadline ends a wait, loses no byte, and costs nothing when it is not needed",
        arguments: DriverKind.permitted)
    func deadlines(driver: DriverKind) async throws {
        try await onAThread {
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            func receive(within time: Duration) -> Started<Result<Int, SystemError>> {
                executor.start {
                    let operation = AwaitedOperation(on: executor)
                    return await outcome { () async throws(SystemError) in
                        try await withDeadline(after: time) { () async throws(SystemError) in
                            try await pair.server.receive(into: operation)
                        }
                    }
                }
            }
            let start = monotonicNanoseconds()
            #expect(code(receive(within: .milliseconds(30)).value(on: executor)) == ETIMEDOUT)
            #expect(monotonicNanoseconds() - start >= 30_000_000)
            try pair.client.say("abc")
            #expect(try receive(within: .seconds(60)).value(on: executor)?.get() == 3)
            // Cancelled from outside it is no matter of the clock.
            let third = receive(within: .seconds(60))
            #expect(eventually { executor.counters.awaited == 1 })
            third.task.cancel()
            #expect(code(third.value(on: executor)) == ECANCELED)
            // Many of them end at the moment when the byte comes: it is theirs, or the next one's.
            var (sent, heard) = (0, 0)
            for number in 0..<50 {
                let wait = receive(within: .microseconds(200 + 20 * number))
                usleep(UInt32(200 + 20 * number))
                try pair.client.say("x")
                sent += 1
                if case .success(let count)? = wait.value(on: executor) { heard += count }
            }
            try pair.client.shutDownSending()
            while case .success(let count)? = receive(within: .seconds(10)).value(on: executor), count > 0 {
                heard += count
            }
            #expect(heard == sent)
            executor.stop()
        }
    }

    @Test("a pause is never short, and ends when its task is cancelled")
    func pauses() async throws {
        try await onAThread {
            let executor = try makeExecutor(.epoll)
            let start = monotonicNanoseconds()
            let first = executor.start {
                await outcome { () async throws(SystemError) in try await pause(for: .milliseconds(20)) }
            }
            #expect(try first.value(on: executor)?.get() == true)
            #expect(monotonicNanoseconds() - start >= 20_000_000)
            let second = executor.start {
                await outcome { () async throws(SystemError) in try await pause(for: .seconds(60)) }
            }
            second.task.cancel()
            #expect(try second.value(on: executor)?.get() == false)
            executor.stop()
        }
    }
}
