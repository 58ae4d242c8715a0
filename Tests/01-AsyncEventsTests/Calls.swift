import AsyncEvents
import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// Lines that several threads write, in order.
final class Journal: @unchecked Sendable {
    private let lock = Lock()
    private var kept: [String] = []
    var lines: [String] { lock.locked { kept } }
    func write(_ line: String) { lock.locked { kept.append(line) } }
}

/// Asynchronous calls and the alertable wait.
@Suite(.serialized)
struct Chapter01AsyncEventsCalls {
    private let soon = Deadline.after(.seconds(20))

    /// A thread of its own, since the queue of a thread of the test pool belongs to whoever runs there next.
    private func onThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) throws -> Result
    {
        let result = boundedResult(.seconds(20)) { Swift.Result { try body() } }
        return try #require(result, "the thread does not end").get()
    }

    /// An expectation for a thread of the test's own: a failure is thrown, and so becomes the test's.
    private func check(_ holds: @autoclosure () throws -> Bool, line: Int = #line) throws {
        if try !holds() { throw Failure(line: line) }
    }

    private struct Failure: Error { let line: Int }

    @Test("I1.6: a call runs in no plain wait, and in the next alertable one")
    func plainWaits() throws {
        try onThread {
            let journal = Journal()
            try APCQueue.current.queue { journal.write("ran") }
            try check(APCQueue.sleep(until: .after(.milliseconds(1)), alertable: false) == .timedOut)
            let event = Event(.automatic, isSet: true)
            try check(event.wait(until: .after(.milliseconds(1))) == .signalled(index: 0))
            try check(event.wait(until: .after(.milliseconds(1))) == .timedOut)
            try check(Event.waitForAny([event], until: .now) == .timedOut)
            try check(Event.waitForAll([event], until: .now) == .timedOut)
            try check(journal.lines.isEmpty)
            try check(APCQueue.sleep(until: .now, alertable: true) == .routinesRan)
            try check(journal.lines == ["ran"])
            try check(APCQueue.sleep(until: .now, alertable: true) == .timedOut)
        }
    }

    @Test("I1.6: one alertable wait runs all calls in order, also those queued meanwhile, and then says so")
    func inOrder() throws {
        try onThread {
            let journal = Journal()
            let queue = APCQueue.current
            for number in 1...3 {
                try queue.queue {
                    journal.write("\(number)")
                    if number < 3 { try? queue.queue { journal.write("\(number) again") } }
                }
            }
            let event = Event(.manual)
            try check(event.wait(until: .after(.seconds(20)), alertable: true) == .routinesRan)
            try check(journal.lines == ["1", "2", "3", "1 again", "2 again"])
            try check(APCQueue.sleep(until: .now, alertable: true) == .timedOut)
        }
    }

    @Test("I1.7: an event that is set already ends the wait, and the call stays queued")
    func eventFirst() throws {
        try onThread {
            let journal = Journal()
            try APCQueue.current.queue { journal.write("ran") }
            let event = Event(.automatic, isSet: true)
            try check(
                try Event.waitForAny([Event(.manual), event], until: .now, alertable: true)
                    == .signalled(index: 1))
            try check(journal.lines.isEmpty)
            try check(event.wait(until: .now, alertable: true) == .routinesRan)
            try check(journal.lines == ["ran"])
        }
    }

    @Test("I1.7: what comes first ends the wait, whatever comes before its thread wakes up")
    func firstComesFirst() throws {
        let rounds = 2_000
        let event = Event(.automatic)
        let (isReady, isOver) = (Event(.automatic), Event(.automatic))
        let queue = Sleeper { () -> Int in
            let own = QueueBox.shared
            own.put(APCQueue.current)
            var lost = 0
            for _ in 0..<rounds {
                isReady.set()
                if event.wait(until: .after(.seconds(20)), alertable: true) != .signalled(index: 0) {
                    lost += 1
                }
                _ = APCQueue.sleep(until: .after(.seconds(20)), alertable: true)
                isOver.set()
            }
            return lost
        }
        let target = try #require(QueueBox.shared.take())
        for _ in 0..<rounds {
            _ = isReady.wait(until: soon)
            event.set()
            try target.queue {}
            _ = isOver.wait(until: soon)
        }
        #expect(queue.result == 0)
    }

    @Test("I1.6: a call sent to another thread ends that thread's alertable wait, and runs there")
    func otherThread() throws {
        let journal = Journal()
        let box = QueueBox()
        let event = Event(.manual)
        let sleeper = Sleeper { [soon] () -> [WaitResult] in
            box.put(APCQueue.current)
            let own = Thread.currentID
            box.own = own
            return [event.wait(until: soon, alertable: true), event.wait(until: soon)]
        }
        let queue = try #require(box.take())
        #expect(sleeper.sleeps)
        let caller = Thread.currentID
        try queue.queue { journal.write(Thread.currentID == box.own ? "there" : "here") }
        #expect(eventually { journal.lines == ["there"] })
        #expect(caller != box.own)
        // Now it is in a plain wait: the call waits with it.
        #expect(sleeper.sleeps)
        try queue.queue { journal.write("too early") }
        #expect(sleeper.sleeps && !sleeper.hasEnded)
        event.set()
        #expect(sleeper.result == [.routinesRan, .signalled(index: 0)])
        #expect(journal.lines == ["there"])
    }

    @Test(
        "I1.6: a routine never runs inside the call that posts, even if the operation is complete by then",
        arguments: DriverKind.permitted.map(\.rawValue))
    func neverInside(kind: String) async {
        await #expect(processExitsWith: .success) { [kind] in
            setenv("PORT_DRIVER", kind, 1)
            let pair = try Pair()
            let (client, server) = (pair.client, pair.server)
            let memory = Memory(4)
            let journal = Journal()
            for round in 0..<100 {
                let request = RoutineRequest()
                let isThere = round % 2 == 0
                if isThere { try client.say("data") }
                try request.post(server.receive(request, into: memory.bytes)) { request in
                    journal.write("\(request.bytes) \(request.isPending)")
                }
                try #require(journal.lines.count == round)
                if !isThere { try client.say("data") }
                try #require(APCQueue.sleep(until: .after(.seconds(20)), alertable: true) == .routinesRan)
                try #require(journal.lines.count == round + 1)
            }
            #expect(Set(journal.lines) == ["4 false"])
            #expect(Driver.system.kind.rawValue == kind)
        }
    }

    @Test("a routine is refused on a handle that belongs to a port", arguments: DriverKind.permitted)
    func notWithPort(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try Scratch(size: 10)
        let file = try stand.file(scratch.path)
        let request = RoutineRequest()
        let memory = Memory(10)
        let journal = Journal()
        #expect(throws: SystemError(EINVAL, attempted: "")) {
            try request.post(file.read(request, into: memory.bytes)) { _ in journal.write("ran") }
        }
        #expect(!request.isPending)
        #expect(journal.lines.isEmpty)
        // Nothing is left of the attempt: without a routine it is an operation like any other.
        request.suppressesPacket = true
        try file.read(request, into: memory.bytes)
        #expect(try request.result(waiting: true, until: soon) == 10)
    }

    @Test(
        "a request may be posted again in its own routine, and not before it has run",
        arguments: DriverKind.permitted.map(\.rawValue))
    func chain(kind: String) async {
        await #expect(processExitsWith: .success) { [kind] in
            setenv("PORT_DRIVER", kind, 1)
            let scratch = try Scratch(size: 1_000)
            let file = try File(scratch.path)
            let request = RoutineRequest()
            let memory = Memory(10)
            var found: [UInt8] = []
            var isOver = false
            func next(_ request: RoutineRequest) {
                found += memory.bytes[..<request.bytes]
                isOver = request.errorCode == SystemError.endOfFile
                request.offset += Int64(request.bytes)
                if !isOver {
                    try? request.post(file.read(request, into: memory.bytes), then: next)
                }
            }
            try request.post(file.read(request, into: memory.bytes), then: next)
            _ = request.wait()
            #expect(throws: SystemError(EALREADY, attempted: "")) {
                try request.post(file.read(request, into: memory.bytes), then: next)
            }
            while !isOver {
                try #require(APCQueue.sleep(until: .after(.seconds(20)), alertable: true) == .routinesRan)
            }
            #expect(found == Scratch.pattern(0..<1_000))
            #expect(Driver.system.kind.rawValue == kind)
        }
    }

    @Test("a routine that waits alertably itself runs what is left")
    func nested() throws {
        try onThread {
            let journal = Journal()
            try APCQueue.current.queue {
                journal.write("one begins")
                let inner = APCQueue.sleep(until: .after(.seconds(20)), alertable: true)
                journal.write("one ends: \(inner)")
            }
            try APCQueue.current.queue { journal.write("two") }
            try check(APCQueue.sleep(until: .now, alertable: true) == .routinesRan)
            try check(journal.lines == ["one begins", "two", "one ends: routinesRan"])
        }
    }

    @Test("a call for a thread that has ended is refused; what completes for it later is let go")
    func endedThread() throws {
        let pair = try Pair()
        let (client, server) = (pair.client, pair.server)
        let box = QueueBox()
        let memory = Memory(4)
        weak var late: RoutineRequest?
        do {
            let request = RoutineRequest()
            late = request
            let thread = startThread("short") {
                box.put(APCQueue.current)
                try? request.post(server.receive(request, into: memory.bytes)) { _ in
                    Issue.record("a routine ran on no thread")
                }
            }
            thread.join()
        }
        let queue = try #require(box.take())
        #expect(late?.isPending == true)
        #expect(throws: APCError.threadEnded) { try queue.queue {} }
        try client.say("data")
        #expect(eventually { late == nil })
    }

    @Test("a queue takes so many calls and no more")
    func full() throws {
        try onThread {
            let counter = Counter()
            for _ in 0..<APCQueue.limit { try APCQueue.current.queue { counter.add() } }
            try check((try? APCQueue.current.queue {}) == nil)
            try check(APCQueue.sleep(until: .now, alertable: true) == .routinesRan)
            try check(counter.value == APCQueue.limit)
        }
    }
}

/// Hands a thread's queue to the test.
private final class QueueBox: @unchecked Sendable {
    static let shared = QueueBox()
    private let gate = Gate()
    private let lock = Lock()
    private var queue: APCQueue?
    private var number: Int32 = 0

    var own: Int32 {
        get { lock.locked { number } }
        set { lock.locked { number = newValue } }
    }

    func put(_ queue: APCQueue) {
        lock.locked { self.queue = queue }
        gate.open()
    }

    func take() -> APCQueue? {
        gate.pass()
        return lock.locked { queue }
    }
}
