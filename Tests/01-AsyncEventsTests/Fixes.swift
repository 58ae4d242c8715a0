import AsyncEvents
import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// The same schedule, without the bad outcome.
@Suite(.serialized)
struct Chapter01AsyncEventsFixes {
    @Test(
        "shared-overlapped: a post on a pending operation is refused, and its result is its own",
        arguments: DriverKind.permitted)
    func sharedOverlapped(kind: DriverKind) throws {
        let seen = try observe("shared-overlapped", broken: false, kind)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test(
        "short-last-read: every size from 0 to 3 blocks and 1 byte is read byte for byte; growing and shrinking are said",
        arguments: DriverKind.permitted)
    func shortLastRead(kind: DriverKind) throws {
        let seen = try observe("short-last-read", broken: false, kind)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test(
        "wait-index-off-by-one: a call and an event are different cases, and the index is always one of the array"
    )
    func waitIndexOffByOne() throws {
        let seen = try observe("wait-index-off-by-one", broken: false)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test(
        "result-before-completion: without waiting it is incomplete; with waiting the thread blocks until there is a result",
        arguments: DriverKind.permitted)
    func resultBeforeCompletion(kind: DriverKind) throws {
        let seen = try observe("result-before-completion", broken: false, kind)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test(
        "overlapped-not-cleared: a post resets event and result, and a second offset is right",
        arguments: DriverKind.permitted)
    func overlappedNotCleared(kind: DriverKind) throws {
        let seen = try observe("overlapped-not-cleared", broken: false, kind)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test("early-timer: no wait is late before its deadline")
    func earlyTimer() throws {
        let seen = try observe("early-timer", broken: false)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test("offset-low-half: a file over 4 GiB is read at its end", arguments: DriverKind.permitted)
    func offsetLowHalf(kind: DriverKind) throws {
        let seen = try observe("offset-low-half", broken: false, kind)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test(
        "event-per-request-limit: 64 requests are waited for; 65 are a clear error before anything is posted",
        arguments: DriverKind.permitted)
    func eventPerRequestLimit(kind: DriverKind) throws {
        let seen = try observe("event-per-request-limit", broken: false, kind)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test(
        "event-one-waiter: with one waiter for each request each completion is handled once",
        arguments: DriverKind.permitted)
    func eventOneWaiter(kind: DriverKind) throws {
        let seen = try observe("event-one-waiter", broken: false, kind)
        #expect(!seen.happened, "\(seen.lines)")
    }

    @Test(
        "apc-needs-alertable-wait: the routine runs in an alertable wait, once, on the thread that posted",
        arguments: DriverKind.permitted.map(\.rawValue))
    func apcNeedsAlertableWait(kind: String) async {
        // In a process of its own, since the driver of handles without a port is settled once for a process.
        await #expect(processExitsWith: .success) { [kind] in
            setenv("PORT_DRIVER", kind, 1)
            let seen = try observe("apc-needs-alertable-wait", broken: false)
            try #require(Driver.system.kind.rawValue == kind)
            #expect(!seen.happened, "\(seen.lines)")
        }
    }

    @Test(
        "apc-starved-by-computation: a computation in pieces lets the routine run in between",
        arguments: DriverKind.permitted.map(\.rawValue))
    func apcStarvedByComputation(kind: String) async {
        // In a process of its own, since the driver of handles without a port is settled once for a process.
        await #expect(processExitsWith: .success) { [kind] in
            setenv("PORT_DRIVER", kind, 1)
            let seen = try observe("apc-starved-by-computation", broken: false)
            try #require(Driver.system.kind.rawValue == kind)
            #expect(!seen.happened, "\(seen.lines)")
        }
    }

    @Test("closed-standard-descriptor: the copy is the source, and nothing else is in it")
    func closedStandardDescriptor() throws {
        let seen = try observe("closed-standard-descriptor", broken: false)
        #expect(!seen.happened, "\(seen.lines)")
        // It was made, and not refused.
        #expect(seen.lines.first == "started with <&- >&-: the program ended with status 0", "\(seen.lines)")
        #expect(seen.lines.last == "of 100,000 bytes 0 are not those of the source", "\(seen.lines)")
    }
}
