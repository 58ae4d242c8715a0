import AsyncEvents
import Kernel
import Stage

/// A thread waits for four requests and for asynchronous calls. A call comes; none of the requests has completed.
enum WaitIndexOffByOne {
    static let pitfall = Pitfall(
        slug: "wait-index-off-by-one",
        title:
            "a check with <= accepts the number after the last event, and a request that does not exist is used",
        broken: { _ in try broken() }, fixed: { _ in try fixed() })

    static func broken() throws -> Observation {
        let wait = BrokenNumberedWait(events: (0..<4).map { _ in Event(.automatic) })
        try APCQueue.current.queue {}
        let number = wait.forAny()
        let accepted = wait.accepts(number)
        return Observation(
            happened: accepted && number == 4,
            lines: [
                "waiting for 4 events, none of them set; the wait returned number \(number)",
                "number >= 0 && number <= 4: \(accepted), and requests[\(number)] is used, of requests 0 to 3",
            ])
    }

    static func fixed() throws -> Observation {
        let events = (0..<4).map { _ in Event(.automatic) }
        try APCQueue.current.queue {}
        let call = try Event.waitForAny(events, alertable: true)
        events[3].set()
        let last = try Event.waitForAny(events, alertable: true)
        return Observation(
            happened: call != .routinesRan || last != .signalled(index: 3),
            lines: [
                "the wait returned \(call): a case of its own, without a number",
                "with the last event set it returned \(last)",
            ])
    }
}

/// A wait that answers with a number, and the check of a published example: `<= WAIT_OBJECT_0 + 4` for four events.
///
/// The number of events is a number like the others. `MsgWaitForMultipleObjects` returns it for a message that has
/// come; this one returns it for a call that has run.
public struct BrokenNumberedWait {
    let events: [Event]

    /// A wait for these events.
    public init(events: [Event]) { self.events = events }

    /// The number of the event that was set, the number of events for a call, 258 for a time-out.
    public func forAny() -> Int {
        switch try? Event.waitForAny(events, until: .after(Gate.patience), alertable: true) {
        case .signalled(let index): index
        case .routinesRan: events.count
        case .timedOut, nil: 258
        }
    }

    /// Whether the program takes the number for one of its requests.
    public func accepts(_ number: Int) -> Bool { number >= 0 && number <= events.count }
}
