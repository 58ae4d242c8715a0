import Glibc
import Kernel
import Stage
import Testing

@Suite(.serialized) struct StageGates {
    @Test("a gate holds a thread back until it is opened, and stays open")
    func gate() {
        let gate = Gate()
        let passed = Counter()
        let thread = startThread("waiter") {
            if gate.pass() { passed.add() }
        }
        #expect(!gate.isOpen && passed.value == 0)
        gate.open()
        thread.join()
        #expect(passed.value == 1)
        gate.open()
        #expect(gate.isOpen && gate.pass(within: .zero))
    }

    @Test("a counting gate opens at the last step")
    func counting() {
        let gate = Gate(count: 3)
        gate.open()
        gate.open()
        #expect(!gate.pass(within: .milliseconds(20)))
        gate.open()
        #expect(gate.pass(within: .zero))
    }

    @Test("a wait at a gate is bounded")
    func bounded() {
        let before = Deadline.now
        #expect(!Gate().pass(within: .milliseconds(50)))
        #expect(Deadline.now.nanoseconds - before.nanoseconds >= 50_000_000)
    }

    @Test("a barrier lets nobody go on before all have come, round after round")
    func barrier() {
        let barrier = Barrier(3)
        let counter = Counter()
        let early = Counter()
        inThreads(3) { _ in
            for round in 1...50 {
                counter.add()
                guard barrier.arrive() else { return }
                if counter.value < 3 * round { early.add() }
                guard barrier.arrive() else { return }
            }
        }
        #expect(counter.value == 150)
        #expect(early.value == 0)
    }

    @Test("a barrier that not all come to is left in time, and works afterwards")
    func barrierBounded() {
        let barrier = Barrier(2)
        #expect(!barrier.arrive(within: .milliseconds(20)))
        let passed = Counter()
        inThreads(2) { _ in if barrier.arrive() { passed.add() } }
        #expect(passed.value == 2)
    }

    @Test("a bounded wait says whether its body ended in time, and a bounded result hands it over")
    func boundedWaits() {
        let gate = Gate()
        #expect(!boundedWait(.milliseconds(30)) { gate.pass() })
        gate.open()
        #expect(boundedWait(.seconds(10)) { gate.pass() })
        #expect(boundedResult(.seconds(10)) { 42 } == 42)
    }

    @Test("eventually asks until it is so, or until the time is over")
    func polling() {
        var asked = 0
        #expect(
            eventually {
                asked += 1
                return asked == 3
            })
        #expect(asked == 3)
        #expect(!eventually(within: .milliseconds(20)) { false })
    }

    @Test("a counter counts every thread, and remembers its peak")
    func counter() {
        let counter = Counter()
        inThreads(4) { _ in for _ in 0..<10_000 { counter.add() } }
        #expect(counter.value == 40_000)
        counter.add(-40_000)
        #expect(counter.value == 0 && counter.peak == 40_000)
    }
}
