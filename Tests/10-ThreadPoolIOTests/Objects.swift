import AsyncEvents
import Glibc
import Kernel
import Stage
import Synchronization
import Testing
import ThreadPoolIO

/// What a callback holds, and what asks the pool when it goes.
private final class Held: Sendable {
    private let pool: ThreadPool
    private let gone: Gate
    init(_ pool: ThreadPool, _ gone: Gate) { (self.pool, self.gone) = (pool, gone) }
    deinit {
        _ = pool.counters
        gone.open()
    }
    func touch() {}
}

@Suite("Chapter 10: the pool and its objects", .serialized)
struct Chapter10ThreadPoolIOObjects {
    @Test(
        "I10.2: no thread before the first task; a pool of at least 0 threads ends with none, and comes again"
    )
    func threads() async throws {
        try await onAThread {
            let pool = try pool(minimum: 0, idleTime: .milliseconds(10))
            #expect(pool.counters.threads == 0)
            for _ in 0..<20 {
                let called = Gate()
                try pool.submit { _ in called.open() }
                #expect(called.pass())
                #expect(eventually { pool.counters.threads == 0 })
            }
            // A timer keeps a thread, since it may fire at any time.
            let fired = Gate()
            let timer = PoolTimer(pool) { _ in fired.open() }
            try timer.set(after: .milliseconds(60))
            #expect(fired.pass())
            #expect(eventually { pool.counters.threads == 0 })
            try pool.closeAndWait()
        }
    }

    @Test("I10.2: submissions race with threads that end: each is called")
    func retiring() async throws {
        try await onAThread {
            let pool = try pool(minimum: 0, maximum: 3, idleTime: .microseconds(200))
            let called = Counter()
            let work = PoolWork(pool) { _ in called.add() }
            inThreads(2) { _ in
                for turn in 0..<400 {
                    try? work.submit()
                    if turn % 4 == 0 { usleep(200) }
                }
            }
            #expect(eventually { called.value == 800 })
            try work.waitForCallbacks()
            try pool.closeAndWait()
            #expect(pool.counters.threads == 0)
        }
    }

    @Test("I10.2: a spare does not idle away while a callback runs: the next one finds it")
    func spareStays() async throws {
        try await onAThread {
            let pool = try pool(minimum: 0, maximum: 2, idleTime: .milliseconds(2))
            let (begun, gate, second) = (Gate(), Gate(), Gate())
            try pool.submit { _ in
                begun.open()
                gate.pass()
            }
            begun.pass()
            // Many times as long as a thread may idle.
            usleep(60_000)
            #expect(pool.counters.waiting == 1)
            try pool.submit { _ in second.open() }
            #expect(second.pass(within: Gate.patience / 2))
            gate.open()
            #expect(eventually { pool.counters.threads == 0 })
            try pool.closeAndWait()
        }
    }

    @Test("I10.2: an idle pool uses no processor time")
    func idle() async {
        await #expect(processExitsWith: .success) {
            let pool = try pool(idleTime: .milliseconds(5))
            try pool.submit { _ in }
            usleep(100_000)
            let before = Resources.processTime
            usleep(400_000)
            let used = Resources.processTime - before
            #expect(used < .milliseconds(100), "\(used)")
            #expect(pool.counters.threads == 1)
            try pool.closeAndWait()
        }
    }

    @Test("I10.1: callbacks run side by side up to the limit, whatever they come from")
    func limit() async throws {
        try await onAThread {
            var options = ThreadPool.Options()
            options.concurrency = 1
            options.port.noticesBlocking = false
            let pool = try ThreadPool(options)
            let (inside, called) = (Counter(), Counter())
            let body: @Sendable (CallbackInstance) -> Void = { _ in
                inside.add()
                inside.add(-1)
                called.add()
            }
            let (work, timer) = (PoolWork(pool, body), PoolTimer(pool, body))
            let wait = PoolWait(pool) { instance, _ in body(instance) }
            let event = Event(.manual, isSet: true)
            for _ in 0..<200 {
                try work.submit()
                try timer.set(due: .now)
                try wait.set(event)
            }
            for object in [work, timer, wait] { try object.waitForCallbacks() }
            #expect(inside.peak == 1)
            #expect(called.value >= 401)
            try pool.closeAndWait()
        }
    }

    @Test("I10.5: waiting with cancelling drops what has not begun, and waits for what has")
    func cancelling() async throws {
        try await onAThread {
            let pool = try pool(maximum: 1)
            let (begun, gate, called) = (Gate(), Gate(), Counter())
            let work = PoolWork(pool) { _ in
                begun.open()
                gate.pass()
                called.add()
            }
            for _ in 0..<10 { try work.submit() }
            begun.pass()
            let over = Gate()
            let waiting = startThread("waiting") {
                try? work.waitForCallbacks(cancelling: true)
                over.open()
            }
            #expect(eventually { work.pendingCallbacks == 1 })
            #expect(!over.isOpen)
            gate.open()
            waiting.join()
            #expect(called.value == 1)
            #expect(pool.counters.cancelled == 9)
            // What is submitted afterwards is called.
            try work.submit()
            try work.waitForCallbacks()
            #expect(called.value == 2)
            try pool.closeAndWait()
        }
    }

    @Test("I10.6: a closed pool takes nothing new, calls what was announced, and ends")
    func closing() async throws {
        try await onAThread {
            let pool = try pool(maximum: 1)
            let (gate, called, timer) = (Gate(), Counter(), Counter())
            let work = PoolWork(pool) { _ in
                gate.pass()
                called.add()
            }
            for _ in 0..<5 { try work.submit() }
            let late = PoolTimer(pool) { _ in timer.add() }
            try late.set(after: .milliseconds(1))
            late.cancel()
            try late.set(after: .seconds(100))
            pool.close()
            #expect(throws: SystemError.self) { try work.submit() }
            #expect(throws: SystemError.self) { try late.set(due: .now) }
            #expect(!late.isSet)
            gate.open()
            try pool.closeAndWait()
            #expect(called.value == 5)
            #expect(timer.value == 0)
            #expect(pool.counters.threads == 0)
        }
    }

    @Test("a callback may ask for another thread, and set an event when it has returned")
    func instance() async throws {
        try await onAThread {
            let pool = try pool(maximum: 2)
            let (first, second, gate, returned) = (Counter(), Counter(), Gate(), Event(.manual))
            try pool.submit { instance in
                instance.set(returned)
                first.add(instance.mayRunLong() ? 1 : 0)
                gate.pass()
            }
            #expect(eventually { first.value == 1 })
            try pool.submit { instance in
                second.add(instance.mayRunLong() ? 1 : 2)
                gate.pass()
            }
            #expect(eventually { second.value == 2 })
            #expect(!returned.isSet)
            gate.open()
            #expect(eventually { returned.isSet })
            try pool.closeAndWait()
        }
    }

    @Test("what a callback held goes without the pool's lock, also when the thread has its next packet")
    func heldObjects() async throws {
        try await onAThread {
            let pool = try pool(minimum: 1, maximum: 1)
            let gone = [Gate(), Gate()]
            for gate in gone {
                let held = Held(pool, gate)
                try pool.submit { _ in held.touch() }
            }
            // One that locks itself out is not asked for its end.
            guard gone.allSatisfy({ $0.pass(within: .seconds(10)) }) else {
                Issue.record("an object went under the pool's lock")
                return
            }
            try pool.closeAndWait()
        }
    }

    @Test("N1: a handle that has a port is refused", arguments: DriverKind.permitted)
    func boundOnce(driver: DriverKind) async throws {
        try await onAThread {
            let (pool, pair, group) = (try pool(driver), try Pair(), PoolGroup())
            let io = try PoolIO(pair.server, pool, group: group) { _, _, _, _ in }
            #expect(throws: SystemError.self) {
                try PoolIO(pair.server, pool, group: group) { _, _, _, _ in }
            }
            #expect(throws: SystemError.self) { try pool.bind(pair.server) { _, _ in } }
            #expect(group.count == 1)
            io.close()
            #expect(group.count == 0)
            try pool.closeAndWait()
        }
    }

    @Test(
        "I10.5: cancelled while its operation is pending: the callback is dropped, the operation goes on",
        arguments: DriverKind.permitted)
    func cancelledIO(driver: DriverKind) async throws {
        try await onAThread {
            let (pool, pair, called) = (try pool(driver), try Pair(), Counter())
            let io = try PoolIO(pair.server, pool) { _, _, _, bytes in called.add(bytes) }
            let (first, second) = (Request(), Request())
            try io.receive(first, into: first.memory)
            #expect(throws: SystemError.self) { try io.receive(first, into: first.memory) }
            try io.waitForCallbacks(cancelling: true)
            #expect(first.isPending)
            try io.receive(second, into: second.memory)
            try pair.client.say("dropped")
            #expect(eventually { !first.isPending })
            try pair.client.say("heard")
            #expect(eventually { called.value == 5 })
            #expect(first.memory[0] == UInt8(ascii: "d"))
            pair.server.close()
            try pool.closeAndWait()
        }
    }

    @Test(
        "issuer-exits: a thread of the pool posts and ends, and its operation completes",
        arguments: DriverKind.permitted)
    func retiredIssuer(driver: DriverKind) async throws {
        try await onAThread {
            // One thread stays while the receive is announced. If it is the issuer, once more.
            var isDone = false
            for _ in 0..<50 where !isDone { isDone = try issueAndRetire(driver) }
            #expect(isDone)
        }
    }

    @Test("nothing is left: threads, descriptors", arguments: DriverKind.permitted.map(\.rawValue))
    func nothingLeft(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = DriverKind(rawValue: driver)!
            try round(kind)
            Resources.settle()
            let before = (Resources.threads, Resources.openDescriptors)
            for _ in 0..<10 { try round(kind) }
            let isBack = eventually {
                Resources.threads <= before.0 && Resources.openDescriptors <= before.1
            }
            #expect(isBack, "\(before), \(Resources.threads), \(Resources.whatIsOpen)")
        }
    }
}

/// A thread of a pool posts a receive and ends, which is then completed. False when that thread was the one to stay.
private func issueAndRetire(_ driver: DriverKind) throws -> Bool {
    let (pool, pair) = (try pool(driver, minimum: 0, idleTime: .milliseconds(5)), try Pair())
    let (heard, request, both) = (Counter(), Request(), Gate(count: 2))
    let issuer = Atomic<Int32>(0)
    let io = try PoolIO(pair.server, pool) { _, _, error, bytes in heard.add(error == nil ? bytes : -100) }
    for number in 0..<2 {
        try pool.submit { _ in
            both.open()
            both.pass()
            guard number == 0 else { return }
            try? io.receive(request, into: request.memory)
            issuer.store(Kernel.Thread.currentID, ordering: .releasing)
        }
    }
    let isAlone = eventually { issuer.load(ordering: .acquiring) != 0 && pool.counters.threads == 1 }
    #expect(isAlone)
    let isGone = eventually(within: .milliseconds(20)) {
        Kernel.Thread.state(of: issuer.load(ordering: .acquiring)) == nil
    }
    #expect(request.isPending)
    try pair.client.say("hello")
    #expect(eventually { heard.value == 5 })
    pair.server.close()
    try pool.closeAndWait()
    return isGone
}

/// A pool's whole life, with all four kinds.
private func round(_ driver: DriverKind) throws {
    let (pool, pair, group) = (try pool(driver), try Pair(), PoolGroup())
    let (called, event) = (Counter(), Event(.automatic))
    let work = PoolWork(pool, group: group) { _ in
        called.add()
        usleep(2_000)
    }
    for _ in 0..<8 { try work.submit() }
    let timer = PoolTimer(pool, group: group) { _ in called.add() }
    try timer.set(due: .now, period: .milliseconds(1))
    let wait = PoolWait(pool, group: group) { _, _ in called.add() }
    try wait.set(event)
    event.set()
    let io = try PoolIO(pair.server, pool, group: group) { _, _, _, _ in called.add() }
    let request = Request()
    try io.receive(request, into: request.memory)
    _ = eventually { called.value > 10 }
    pair.server.close()
    try group.close()
    try pool.closeAndWait()
    #expect(group.count == 0)
}
