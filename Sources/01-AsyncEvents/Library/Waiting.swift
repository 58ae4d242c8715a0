import Kernel

/// How a wait ended. There is no number to compare with, and no number that means two things.
public enum WaitResult: Sendable, Equatable {
    /// An event was set: the one at this place of the array that was waited for (0 for one event, or all).
    /// Win32: `WAIT_OBJECT_0` and its successors.
    case signalled(index: Int)
    /// The deadline has passed. Win32: `WAIT_TIMEOUT`.
    case timedOut
    /// No event was set; asynchronous calls ran instead. Win32: `WAIT_IO_COMPLETION`.
    case routinesRan
}

/// Why a wait was refused. Nothing was waited for and no event was changed.
/// Win32 counterpart: `WAIT_FAILED` with `ERROR_INVALID_PARAMETER`.
public enum WaitError: Error, Equatable, CustomStringConvertible {
    /// There was nothing to wait for.
    case noEvents
    /// One wait covers at most `Event.maximumPerWait` events.
    case tooManyEvents(Int)
    /// A wait for all cannot have the same event twice: an automatic reset could satisfy only one of them.
    case sameEventTwice(first: Int, second: Int)

    /// One line.
    public var description: String {
        switch self {
        case .noEvents: "wait for no event at all"
        case .tooManyEvents(let count):
            "wait for \(count) events at once: one wait covers at most \(Event.maximumPerWait)"
        case .sameEventTwice(let first, let second):
            "wait for all of several events: number \(first) and number \(second) are the same one"
        }
    }
}

extension Event {
    /// How many events one wait covers. Win32: `MAXIMUM_WAIT_OBJECTS`.
    public static let maximumPerWait = 64

    /// Waits until this event is set.
    /// - Parameter alertable: whether asynchronous calls of this thread may run instead, and end the wait.
    ///
    /// Win32 counterpart: `WaitForSingleObjectEx`.
    public func wait(until deadline: Deadline = .never, alertable: Bool = false) -> WaitResult {
        Dispatcher.wait([self], until: deadline, alertable: alertable)
    }

    /// Waits until one of several events is set. If several are, the first in the array counts, and only that one is
    /// reset if it resets automatically; so what stands late in the array can starve.
    /// Win32 counterpart: `WaitForMultipleObjectsEx`, waiting for any.
    public static func waitForAny(
        _ events: [Event], until deadline: Deadline = .never, alertable: Bool = false
    ) throws(WaitError) -> WaitResult {
        try check(events)
        return Dispatcher.wait(events, until: deadline, alertable: alertable)
    }

    /// Waits until all of several events are set in one moment, and resets those with automatic reset in that
    /// moment. Until then none of them is touched. Win32 counterpart: `WaitForMultipleObjectsEx`, waiting for all.
    public static func waitForAll(
        _ events: [Event], until deadline: Deadline = .never, alertable: Bool = false
    ) throws(WaitError) -> WaitResult {
        try check(events)
        for (second, event) in events.enumerated() {
            if let first = events[..<second].firstIndex(where: { $0 === event }) {
                throw .sameEventTwice(first: first, second: second)
            }
        }
        return Dispatcher.wait(events, all: true, until: deadline, alertable: alertable)
    }

    private static func check(_ events: [Event]) throws(WaitError) {
        if events.isEmpty { throw .noEvents }
        if events.count > maximumPerWait { throw .tooManyEvents(events.count) }
    }
}
