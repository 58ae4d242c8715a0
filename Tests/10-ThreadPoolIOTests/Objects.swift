import AsyncEvents
import Kernel
import Stage
import Synchronization
import Testing
import ThreadPoolIO

@Suite("chapter 10: the pool's objects", .serialized)
struct Chapter10ThreadPoolIOObjects {
    @Test("I10.2: no thread before the first task; blocked callbacks make the pool grow to its maximum; it shrinks to its minimum")
    func threads() throws {
        var options = ThreadPool.Options()
        options.maximum = 4
        options.idleTime = .milliseconds(20)
        let pool = try ThreadPool(options)
        #expect(pool.counters.threads == 0)
        let gate = Gate()
        let began = Atomic<Int>(0)
        let work = PoolWork(pool) { _ in
            began.add(1, ordering: .relaxed)
            gate.pass()
        }
        for _ in 0..<6 { try work.submit() }
        #expect(eventually { began.load(ordering: .relaxed) == 4 })
        #expect(pool.counters.threads == 4)
        #expect(work.pendingCallbacks == 6)
        gate.open()
        try work.waitForCallbacks()
        #expect(began.load(ordering: .relaxed) == 6)
        #expect(eventually { pool.counters.threads == 1 })
        try pool.closeAndWait()
        #expect(pool.counters.threads == 0)
    }

    @Test("I10.4: 2,000 timers, none early and each once")
    func timers() throws {
        let pool = try ThreadPool()
        let early = Atomic<Int>(0)
        let called = Atomic<Int>(0)
        let group = PoolGroup()
        for number in 0..<2_000 {
            let due = Deadline.after(.microseconds((number * 7919) % 500_000))
            let timer = PoolTimer(pool, group: group) { _ in
                if !due.hasPassed { early.add(1, ordering: .relaxed) }
                called.add(1, ordering: .relaxed)
            }
            try timer.set(due: due)
        }
        #expect(eventually { called.load(ordering: .relaxed) == 2_000 })
        #expect(early.load(ordering: .relaxed) == 0)
        try group.close()
        try pool.closeAndWait()
        #expect(called.load(ordering: .relaxed) == 2_000)
    }

    @Test("a wait calls back once for each setting: signalled, or timed out")
    func waits() throws {
        let pool = try ThreadPool()
        let event = Event(.automatic)
        let signalled = Atomic<Int>(0)
        let timedOut = Atomic<Int>(0)
        let wait = PoolWait(pool) { _, result in
            if result == .signalled { signalled.add(1, ordering: .relaxed) } else { timedOut.add(1, ordering: .relaxed) }
        }
        try wait.set(event)
        event.set()
        #expect(eventually { signalled.load(ordering: .relaxed) == 1 })
        event.set()
        try wait.waitForCallbacks()
        #expect(signalled.load(ordering: .relaxed) == 1)
        try wait.set(event)
        #expect(eventually { signalled.load(ordering: .relaxed) == 2 })
        try wait.set(event, until: .after(.milliseconds(5)))
        #expect(eventually { timedOut.load(ordering: .relaxed) == 1 })
        #expect(!event.isSet)
        try pool.closeAndWait()
    }

    @Test("the server takes 20 clients in turn and ends well, on both drivers", arguments: DriverKind.permitted)
    func server(kind: DriverKind) throws {
        var options = PoolServer.Options()
        options.pool.port.driver = kind
        let lines = Atomic<Int>(0)
        let server = try PoolServer(options: options) { report in
            if case .line(let bytes, _) = report, bytes == Array("hello".utf8) { lines.add(1, ordering: .relaxed) }
        }
        for _ in 0..<20 {
            let client = try Socket.connected(to: server.address)
            _ = try client.sendNow(Array("hello\n".utf8).withUnsafeBytes { $0 })
            #expect(eventually { server.counters.connections == 1 })
            client.close()
            #expect(eventually { server.counters.connections == 0 })
        }
        #expect(eventually { lines.load(ordering: .relaxed) == 20 })
        let silent = try Socket.connected(to: server.address)
        try server.stop()
        silent.close()
        #expect(server.counters.reused > 0)
    }
}
