import AsyncEvents
import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// Runs the scenario of a pitfall on a thread of its own, under a bounded wait.
func observe(_ slug: String, broken: Bool, _ kind: DriverKind = .epoll) throws -> Observation {
    let pitfall = try #require(Chapter01.pitfalls.first { $0.slug == slug })
    let run = broken ? pitfall.broken : pitfall.fixed
    let result = boundedResult(.seconds(30)) { Result { try run(kind) } }
    return try #require(result, "the scenario does not end").get()
}

/// The bad outcome occurs.
@Suite(.serialized)
struct Chapter01AsyncEventsPitfalls {
    @Test("shared-overlapped: asked for the first request's result, it gives the second one's")
    func sharedOverlapped() throws {
        let seen = try observe("shared-overlapped", broken: true)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test(
        "short-last-read: bytes are counted that never came, written past the end of the memory, and waited for in vain",
        arguments: DriverKind.permitted)
    func shortLastRead(kind: DriverKind) throws {
        let seen = try observe("short-last-read", broken: true, kind)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test("wait-index-off-by-one: the check accepts the number after the last event")
    func waitIndexOffByOne() throws {
        let seen = try observe("wait-index-off-by-one", broken: true)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test(
        "result-before-completion: the byte count of a pending receive looks like the end of the stream",
        arguments: DriverKind.permitted)
    func resultBeforeCompletion(kind: DriverKind) throws {
        let seen = try observe("result-before-completion", broken: true, kind)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test("overlapped-not-cleared: the old event ends the wait, and the old half of the offset is read at")
    func overlappedNotCleared() throws {
        let seen = try observe("overlapped-not-cleared", broken: true)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test("early-timer: a wait in whole milliseconds is late before its deadline")
    func earlyTimer() throws {
        let seen = try observe("early-timer", broken: true)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test(
        "offset-low-half: a file over 4 GiB is read at the low half of its offset",
        arguments: DriverKind.permitted)
    func offsetLowHalf(kind: DriverKind) throws {
        let seen = try observe("offset-low-half", broken: true, kind)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test(
        "event-per-request-limit: 65 requests complete, and a loop over one wait handles none of them",
        arguments: DriverKind.permitted)
    func eventPerRequestLimit(kind: DriverKind) throws {
        let seen = try observe("event-per-request-limit", broken: true, kind)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test(
        "event-one-waiter: one completion is handled by all waiting threads, or by one while the others starve",
        arguments: DriverKind.permitted)
    func eventOneWaiter(kind: DriverKind) throws {
        let seen = try observe("event-one-waiter", broken: true, kind)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test("apc-needs-alertable-wait: the routine does not run in a plain wait, nor on another thread")
    func apcNeedsAlertableWait() throws {
        let seen = try observe("apc-needs-alertable-wait", broken: true)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test("apc-starved-by-computation: the routine does not run while its thread computes")
    func apcStarvedByComputation() throws {
        let seen = try observe("apc-starved-by-computation", broken: true)
        #expect(seen.happened, "\(seen.lines)")
    }

    @Test("closed-standard-descriptor: the message that the copy is made stands in the copy")
    func closedStandardDescriptor() throws {
        let seen = try observe("closed-standard-descriptor", broken: true)
        #expect(seen.happened, "\(seen.lines)")
        #expect(seen.lines[1] == "the target begins: \"copied 100000 bytes: well \"")
    }

    @Test("wait-index-off-by-one: the request with the accepted number does not exist")
    func wrongIndexCrashes() async {
        await #expect(processExitsWith: .failure) {
            let wait = BrokenNumberedWait(events: (0..<4).map { _ in Event(.automatic) })
            let requests = (0..<4).map { _ in Overlapped() }
            try APCQueue.current.queue {}
            let number = wait.forAny()
            // Ends well, and so fails the test, if the number is refused.
            if wait.accepts(number) { print(requests[number].bytes) }
        }
    }
}
