import AsyncEvents
import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// Posting, completing, and asking for the result, on both drivers.
@Suite(.serialized)
struct Chapter01AsyncEventsResults {
    private let soon = Deadline.after(.seconds(20))

    @Test(
        "a post returns alike when data are there and when they are not; the result comes by event",
        arguments: DriverKind.permitted)
    func bothWays(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let memory = Memory(16)
        let operation = Stand.operation(Event(.manual))
        let event = try #require(operation.event as? Event)
        try client.say("there")
        try server.receive(operation, into: memory.bytes)
        #expect(event.wait(until: soon) == .signalled(index: 0))
        #expect(try operation.result() == 5)
        try server.receive(operation, into: memory.bytes)
        #expect(throws: ResultError.incomplete) { try operation.result() }
        try client.say("later on")
        #expect(event.wait(until: soon) == .signalled(index: 0))
        #expect(try operation.result() == 8)
        #expect(memory.text(8) == "later on")
    }

    @Test(
        "a refused post leaves the operation, its event and its result as they were",
        arguments: DriverKind.permitted)
    func refused(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try Scratch(size: 10)
        let file = try stand.file(scratch.path)
        let memory = Memory(10)
        let operation = Stand.operation(Event(.manual))
        let event = try #require(operation.event as? Event)
        try file.read(operation, into: memory.bytes)
        #expect(event.wait(until: soon) == .signalled(index: 0))
        operation.offset = -1
        #expect(throws: SystemError.self) { try file.read(operation, into: memory.bytes) }
        file.close()
        operation.offset = 0
        #expect(throws: SystemError(EBADF, attempted: "")) { try file.read(operation, into: memory.bytes) }
        #expect(event.isSet && !operation.isPending)
        #expect(try operation.result() == 10)
        let again = try stand.file(scratch.path)
        try again.read(operation, into: memory.bytes)
        #expect(try operation.result(waiting: true, until: soon) == 10)
    }

    @Test(
        "on a handle with a target an event and a packet both come; suppressed, only the event",
        arguments: DriverKind.permitted)
    func eventAndPacket(kind: DriverKind) throws {
        let target = CountingTarget(try Driver.make(kind))
        let pair = try Pair()
        let (client, server) = (pair.client, pair.server)
        try server.associate(with: target, key: 7, driver: target.driver)
        let memory = Memory(4)
        for isSuppressed in [false, true] {
            let operation = Overlapped()
            operation.event = Event(.manual)
            operation.suppressesPacket = isSuppressed
            try server.receive(operation, into: memory.bytes)
            try client.say("data")
            let before = target.packets
            #expect(
                eventually {
                    target.poll(); return !operation.isPending
                })
            #expect((operation.event as? Event)?.wait(until: soon) == .signalled(index: 0))
            #expect(try operation.result() == 4)
            target.poll()
            #expect(target.packets == before + (isSuppressed ? 0 : 1))
        }
    }

    @Test(
        "I1.5: a post makes it pending and resets the event; completion writes the result and sets it",
        arguments: DriverKind.permitted)
    func statusAndEvent(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let memory = Memory(8)
        let operation = Stand.operation(Event(.manual, isSet: true))
        let event = try #require(operation.event as? Event)
        for _ in 0..<3 {
            try server.receive(operation, into: memory.bytes)
            #expect(operation.isPending && !event.isSet)
            #expect(throws: ResultError.incomplete) { try operation.result() }
            try client.say("abc")
            #expect(event.wait(until: soon) == .signalled(index: 0))
            #expect(!operation.isPending && operation.bytes == 3 && operation.error == nil)
            #expect(event.isSet)
        }
    }

    @Test("I1.1: each of several pending receives fills its own memory", arguments: DriverKind.permitted)
    func ownMemory(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let requests = (0..<4).map { _ in (Stand.operation(Event(.automatic)), Memory(2)) }
        for (operation, memory) in requests { try server.receive(operation, into: memory.bytes) }
        for (operation, memory) in requests {
            #expect(throws: SystemError(EALREADY, attempted: "")) {
                try server.receive(operation, into: memory.bytes)
            }
        }
        try client.say("aabbccdd")
        let events = requests.compactMap { $0.0.event as? Event }
        #expect(try Event.waitForAll(events, until: soon) == .signalled(index: 0))
        #expect(requests.map { $0.1.text(2) } == ["aa", "bb", "cc", "dd"])
    }

    @Test(
        "when operations share an event, a post wipes out what another one has announced",
        arguments: DriverKind.permitted)
    func sharedEvent(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let event = Event(.manual)
        let (one, two, memory) = (Stand.operation(event), Stand.operation(event), Memory(8))
        try server.receive(one, into: memory.bytes)
        try client.say("one")
        #expect(event.wait(until: soon) == .signalled(index: 0))
        try server.receive(two, into: memory.bytes)
        #expect(!event.isSet, "the announcement of the first is gone")
        #expect(try one.result() == 3, "its status is not")
        try client.say("two")
        #expect(event.wait(until: soon) == .signalled(index: 0))
    }

    @Test(
        "a read takes its offset from the operation, and leaves it there", arguments: DriverKind.permitted
    )
    func offsets(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try Scratch(size: 1_000)
        let file = try stand.file(scratch.path)
        let operation = Stand.operation()
        let memory = Memory(10)
        for offset: Int64 in [0, 500, 7, 500, 990, 995] {
            operation.offset = offset
            try file.read(operation, into: memory.bytes)
            let bytes = try operation.result(waiting: true, until: soon)
            #expect(bytes == Int(min(10, 1_000 - offset)))
            #expect(Array(memory.bytes[..<bytes]) == Scratch.pattern(offset..<offset + Int64(bytes)))
            #expect(operation.offset == offset)
        }
    }

    @Test(
        "a read at or after the end of the file gives the end as a result of its own",
        arguments: DriverKind.permitted)
    func endOfFile(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try Scratch(size: 10)
        let file = try stand.file(scratch.path)
        let operation = Stand.operation()
        let memory = Memory(10)
        for offset: Int64 in [10, 11, 1 << 40] {
            operation.offset = offset
            try file.read(operation, into: memory.bytes)
            #expect(throws: ResultError.endOfFile) { try operation.result(waiting: true, until: soon) }
        }
        operation.offset = 9
        try file.read(operation, into: memory.bytes)
        #expect(try operation.result(waiting: true, until: soon) == 1)
        operation.offset = 10
        try file.read(operation, into: UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<0]))
        #expect(try operation.result(waiting: true, until: soon) == 0, "nothing asked, nothing missing")
    }

    @Test(
        "incomplete while pending, the same answer again and again after that",
        arguments: DriverKind.permitted)
    func repeatable(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let operation = Stand.operation()
        let memory = Memory(8)
        try server.receive(operation, into: memory.bytes)
        for _ in 0..<3 { #expect(throws: ResultError.incomplete) { try operation.result() } }
        let deadline = Deadline.after(.milliseconds(20))
        #expect(throws: ResultError.incomplete) { try operation.result(waiting: true, until: deadline) }
        #expect(deadline.hasPassed)
        let sleeper = Sleeper { try? operation.result(waiting: true) }
        #expect(sleeper.sleeps)
        try client.say("abcd")
        #expect(sleeper.result == 4)
        for _ in 0..<3 {
            #expect(try operation.result() == 4)
            #expect(try operation.result(waiting: true) == 4)
        }
        try server.receive(operation, into: memory.bytes)
        client.close()
        #expect(try operation.result(waiting: true, until: soon) == 0, "the end of the stream")
        server.close()
    }

    @Test(
        "I1.2: the status decides, whichever thread has used up or reset the event",
        arguments: DriverKind.permitted)
    func statusDecides(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let event = Event(.automatic)
        let operation = Stand.operation(event)
        let memory = Memory(8)
        try server.receive(operation, into: memory.bytes)
        try client.say("abcd")
        #expect(event.wait(until: soon) == .signalled(index: 0))
        #expect(!event.isSet)
        #expect(try operation.result(waiting: true, until: soon) == 4)
        try server.receive(operation, into: memory.bytes)
        try client.say("ab")
        #expect(eventually { !operation.isPending && event.isSet })
        event.reset()
        #expect(event.wait(until: .now) == .timedOut)
        #expect(try operation.result(waiting: true, until: soon) == 2)
    }

    @Test("a cancelled operation is a failure with its reason", arguments: DriverKind.permitted)
    func cancelled(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let operation = Stand.operation(Event(.manual))
        let memory = Memory(8)
        try server.receive(operation, into: memory.bytes)
        #expect(server.cancel(operation))
        do throws(ResultError) {
            _ = try operation.result(waiting: true, until: soon)
            Issue.record("it was not cancelled")
        } catch {
            guard case .failed(let reason) = error else { throw error }
            #expect(reason.code == SystemError.cancelled)
        }
        withExtendedLifetime(client) {}
    }

    @Test(
        "an operation that is posted again as soon as it is complete does not get its last life's event",
        arguments: DriverKind.permitted)
    func lateEvent(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let slow = SlowSignal()
        let operation = Stand.operation()
        operation.event = slow
        let memory = Memory(8)
        try server.receive(operation, into: memory.bytes)
        try client.say("abcd")
        // Complete, and held up before its event is set.
        #expect(eventually { !operation.isPending })
        #expect(slow.isSetting.pass())
        let poster = Sleeper { try? server.receive(operation, into: memory.bytes) }
        usleep(20_000)
        #expect(!poster.hasEnded)
        slow.mayGoOn.open()
        #expect(poster.result != nil)
        #expect(operation.isPending)
        #expect(slow.log == ["reset", "set", "reset"])
        try client.say("end")
        #expect(try operation.result(waiting: true, until: soon) == 3)
    }
}

/// Counts packets, and takes them on the calling thread.
private final class CountingTarget: CompletionTarget, @unchecked Sendable {
    let driver: Driver
    private let count = Counter()
    var packets: Int { count.value }

    init(_ driver: Driver) { self.driver = driver }

    func poll() {
        var completed = CompletionList()
        driver.poll(for: self, until: .after(.milliseconds(1)), &completed)
        take(&completed)
    }

    override func take(_ completed: inout CompletionList) {
        while let packet = completed.popFirst() {
            count.add()
            packet.takeRetainedValue().wasDequeued()
        }
    }
}

/// An event whose first setting is held up.
private final class SlowSignal: Signal, @unchecked Sendable {
    let isSetting = Gate()
    let mayGoOn = Gate()
    private let lock = Lock()
    private var lines: [String] = []

    var log: [String] { lock.locked { lines } }

    override func reset() { lock.locked { lines.append("reset") } }

    override func set() {
        isSetting.open()
        mayGoOn.pass()
        lock.locked { lines.append("set") }
    }
}
