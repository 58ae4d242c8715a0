import Contexts
import Kernel
import Stage
import Testing
import WorkerPools

@Suite("Chapter 09: messages for the screen", .serialized)
struct Chapter09WorkerPoolsMessages {
    // I9.7
    @Test("4,000 lines of four threads come out whole, each thread's in order")
    func whole() async throws {
        try await onAThread {
            let shown = Guarded<[String]>([])
            let messages = try MessageQueue(capacity: 4_000) { line in shown.locked { $0.append(line) } }
            inThreads(4) { thread in
                for number in 0..<1_000 { messages.say("\(thread) \(number)") }
            }
            #expect(messages.stop(within: .seconds(20)) == 0)
            let lines = shown.locked { $0 }
            #expect(lines.count == 4_000)
            for thread in 0..<4 {
                #expect(
                    lines.filter { $0.hasPrefix("\(thread) ") } == (0..<1_000).map { "\(thread) \($0)\n" })
            }
            let counters = messages.counters
            #expect((counters.said, counters.written, counters.dropped) == (4_000, 4_000, 0))
        }
    }

    // I9.7
    @Test(
        "When there is no room the oldest lines are dropped, counted, and where they are missing it says so")
    func oldest() async throws {
        try await onAThread {
            let shown = Guarded<[String]>([])
            let (writes, goesOn) = (Gate(), Gate())
            let messages = try MessageQueue(capacity: 3) { line in
                writes.open()
                goesOn.pass()
                shown.locked { $0.append(line) }
            }
            messages.say("1")
            writes.pass()
            for number in 2...9 { messages.say("\(number)") }
            #expect(messages.counters.dropped == 5)
            goesOn.open()
            #expect(messages.stop() == 0)
            #expect(shown.locked { $0 } == ["1\n", "… 5 lines not shown\n", "7\n", "8\n", "9\n"])
            messages.say("late")
            let counters = messages.counters
            #expect((counters.said, counters.written, counters.dropped) == (10, 4, 6))
            #expect(messages.stop() == 0)
        }
    }

    // I9.7
    @Test("A single missing line is a line; a stuck sink is left behind, and ends when it is let go")
    func stuck() async throws {
        try await onAThread {
            let shown = Guarded<[String]>([])
            let (writes, goesOn) = (Gate(), Gate())
            let messages = try MessageQueue(capacity: 1) { line in
                writes.open()
                goesOn.pass()
                shown.locked { $0.append(line) }
            }
            messages.say("1")
            writes.pass()
            messages.say("2")
            messages.say("3")
            #expect(messages.stop(within: .milliseconds(10)) == 2)
            goesOn.open()
            #expect(eventually { shown.locked { $0.count } == 1 })
            #expect(shown.locked { $0 } == ["1\n"])
            #expect(messages.counters.dropped == 2)
        }
    }
}
