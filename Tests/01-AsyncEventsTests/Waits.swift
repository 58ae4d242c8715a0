import AsyncEvents
import Glibc
import Kernel
import Stage
import Testing

/// A thread of the test's own, and whether it sleeps.
final class Sleeper<Result: Sendable>: @unchecked Sendable {
    private let started = Gate()
    private let ended = Gate()
    private var number: Int32 = 0
    private var value: Result?

    init(_ body: @escaping @Sendable () -> Result) {
        _ = startThread("sleeper") { [self] in
            number = Thread.currentID
            started.open()
            value = body()
            ended.open()
        }
    }

    /// Whether the thread comes to rest: blocked, and still blocked when looked at again and again.
    var sleeps: Bool {
        started.pass()
        return eventually {
            for _ in 0..<5 {
                if Thread.state(of: number) != .blocked { return false }
                usleep(1_000)
            }
            return true
        }
    }

    var hasEnded: Bool { ended.isOpen }

    /// What the thread's body returned; nil if it did not end in time.
    var result: Result? { ended.pass() ? value : nil }
}

/// Events, and waiting for one, any, all.
@Suite(.serialized)
struct Chapter01AsyncEventsWaits {
    private let soon = Deadline.after(.seconds(20))

    @Test("I1.3: an event with manual reset lets everybody go and stays set")
    func manual() {
        let event = Event(.manual)
        let sleepers = (0..<3).map { _ in Sleeper { [soon] in event.wait(until: soon) } }
        for sleeper in sleepers { #expect(sleeper.sleeps) }
        event.set()
        for sleeper in sleepers { #expect(sleeper.result == .signalled(index: 0)) }
        #expect(event.isSet)
        event.reset()
        #expect(!event.isSet)
        #expect(event.wait(until: .now) == .timedOut)
    }

    @Test(
        "I1.3: an event with automatic reset lets one thread go for each set, the one that has waited longest"
    )
    func automatic() {
        let event = Event(.automatic)
        var sleepers: [Sleeper<WaitResult>] = []
        for _ in 0..<3 {
            sleepers.append(Sleeper { [soon] in event.wait(until: soon) })
            #expect(sleepers.last!.sleeps)
        }
        for (index, sleeper) in sleepers.enumerated() {
            event.set()
            #expect(sleeper.result == .signalled(index: 0))
            #expect(!event.isSet)
            for other in sleepers[(index + 1)...] { #expect(other.sleeps && !other.hasEnded) }
        }
        event.set()
        #expect(event.isSet, "nobody waits: it stays set for the next")
        #expect(event.wait(until: .now) == .signalled(index: 0))
        #expect(event.wait(until: .now) == .timedOut)
    }

    @Test("a set that a reset follows at once still lets go who waits")
    func pulse() {
        let event = Event(.manual)
        let sleeper = Sleeper { [soon] in event.wait(until: soon) }
        #expect(sleeper.sleeps)
        event.set()
        event.reset()
        #expect(sleeper.result == .signalled(index: 0))
    }

    @Test("a wait takes 1 to 64 events; 65 and 0 are errors, and change nothing")
    func limits() throws {
        let events = (0..<65).map { _ in Event(.automatic, isSet: true) }
        #expect(try Event.waitForAny(Array(events[..<64]), until: soon) == .signalled(index: 0))
        events[0].set()
        #expect(try Event.waitForAll(Array(events[..<64]), until: soon) == .signalled(index: 0))
        for event in events[..<64] { #expect(!event.isSet) }
        for event in events { event.set() }
        #expect(throws: WaitError.tooManyEvents(65)) { try Event.waitForAny(events, until: soon) }
        #expect(throws: WaitError.tooManyEvents(65)) { try Event.waitForAll(events, until: soon) }
        #expect(throws: WaitError.noEvents) { try Event.waitForAny([], until: soon) }
        #expect(throws: WaitError.noEvents) { try Event.waitForAll([], until: soon) }
        for event in events { #expect(event.isSet) }
    }

    @Test("of several set events the first counts, and only that one is reset; the last can starve")
    func lowestFirst() throws {
        let events = (0..<4).map { _ in Event(.automatic) }
        events[1].set()
        events[3].set()
        #expect(try Event.waitForAny(events, until: soon) == .signalled(index: 1))
        #expect(!events[1].isSet && events[3].isSet)
        for _ in 0..<100 {
            events[0].set()
            #expect(try Event.waitForAny(events, until: soon) == .signalled(index: 0))
        }
        #expect(try Event.waitForAny(events, until: soon) == .signalled(index: 3))
    }

    @Test("a wait for any is let go by any of its events, with its place")
    func anyWhileWaiting() throws {
        for place in 0..<4 {
            let events = (0..<4).map { _ in Event(.automatic) }
            let sleeper = Sleeper { [soon] in try? Event.waitForAny(events, until: soon) }
            #expect(sleeper.sleeps)
            events[place].set()
            #expect(sleeper.result == .signalled(index: place))
            #expect(!events[place].isSet)
        }
    }

    @Test("a wait for all refuses the same event twice; a wait for any does not mind")
    func sameTwice() throws {
        let (one, two) = (Event(.automatic, isSet: true), Event(.automatic, isSet: true))
        #expect(throws: WaitError.sameEventTwice(first: 0, second: 2)) {
            try Event.waitForAll([one, two, one], until: soon)
        }
        #expect(one.isSet && two.isSet)
        #expect(try Event.waitForAny([one, one], until: soon) == .signalled(index: 0))
        #expect(!one.isSet)
        let sleeper = Sleeper { [soon] in try? Event.waitForAny([one, one], until: soon) }
        #expect(sleeper.sleeps)
        one.set()
        #expect(sleeper.result == .signalled(index: 0))
        #expect(!one.isSet)
    }

    @Test("I1.3: a wait for all takes nothing until it can take everything in one moment")
    func all() throws {
        let (one, two) = (Event(.automatic), Event(.automatic))
        let sleeper = Sleeper { [soon] in try? Event.waitForAll([one, two], until: soon) }
        #expect(sleeper.sleeps)
        one.set()
        #expect(sleeper.sleeps && one.isSet, "one of two is not touched")
        #expect(one.wait(until: .now) == .signalled(index: 0), "somebody else may take it")
        two.set()
        #expect(sleeper.sleeps && two.isSet)
        one.set()
        #expect(sleeper.result == .signalled(index: 0))
        #expect(!one.isSet && !two.isSet)
        one.set()
        #expect(try Event.waitForAll([one, two], until: .now) == .timedOut)
        #expect(one.isSet)
    }

    @Test("two threads that take what they need in one moment do not wait for each other for ever")
    func allWithoutDeadlock() throws {
        let forks = (0..<3).map { _ in Event(.automatic, isSet: true) }
        let meals = Counter()
        inThreads(3) { index in
            let mine = [forks[index], forks[(index + 1) % 3]]
            for _ in 0..<500 {
                guard case .signalled = try? Event.waitForAll(mine, until: .after(.seconds(20))) else {
                    return
                }
                meals.add()
                for fork in mine { fork.set() }
            }
        }
        #expect(meals.value == 1_500)
    }

    @Test("two threads that wake each other by events lose no wake-up")
    func pingPong() {
        let (ping, pong) = (Event(.automatic), Event(.automatic))
        let rounds = 20_000
        let sleeper = Sleeper { () -> Int in
            for round in 0..<rounds {
                guard ping.wait(until: .after(.seconds(20))) == .signalled(index: 0) else { return round }
                pong.set()
            }
            return rounds
        }
        for _ in 0..<rounds {
            ping.set()
            guard pong.wait(until: .after(.seconds(20))) == .signalled(index: 0) else { break }
        }
        #expect(sleeper.result == rounds)
    }

    @Test("I1.8: a deadline that has passed asks and does not wait; one that lies ahead is kept")
    func deadlines() {
        let event = Event(.manual)
        #expect(event.wait(until: .after(.zero)) == .timedOut)
        #expect(event.wait(until: .after(.seconds(-1))) == .timedOut)
        #expect(APCQueue.sleep(until: .now, alertable: false) == .timedOut)
        for microseconds in [1, 300, 999, 1_001, 2_500, 10_999] {
            let deadline = Deadline.after(.microseconds(microseconds))
            #expect(event.wait(until: deadline) == .timedOut)
            #expect(deadline.hasPassed)
        }
        event.set()
        #expect(event.wait(until: .after(.zero)) == .signalled(index: 0))
    }

    @Test("I1.8: a thread that is woken for nothing goes on waiting until its deadline")
    func wokenForNothing() {
        let (event, other) = (Event(.automatic), Event(.automatic))
        let late = Deadline.after(.milliseconds(100))
        let sleeper = Sleeper { (try? Event.waitForAll([event, other], until: late), late.hasPassed) }
        while !late.hasPassed {
            event.set()
            event.reset()
        }
        #expect(sleeper.result?.0 == .timedOut)
        #expect(sleeper.result?.1 == true)
    }

    @Test("errors are one line each")
    func errors() {
        #expect("\(WaitError.tooManyEvents(65))" == "wait for 65 events at once: one wait covers at most 64")
        #expect("\(WaitError.noEvents)" == "wait for no event at all")
        #expect("\(WaitError.sameEventTwice(first: 0, second: 2))".contains("number 0 and number 2"))
    }
}
