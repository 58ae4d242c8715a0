import Kernel

/// One lock over all events, waits and queues of asynchronous calls of the process.
///
/// A wait for several events has to look at all of them in one moment, and so has the thread that sets one of them. The
/// first versions of Windows NT had exactly one such lock, too.
enum Dispatcher {
    static let lock = Lock()

    /// Waits on behalf of the calling thread.
    ///
    /// In this order: an event that is set already ends the wait, and asynchronous calls stay queued (I1.7). Else
    /// queued calls run, if the wait is alertable. Else a deadline that has passed ends it. Else the thread sleeps.
    static func wait(
        _ events: [Event], all: Bool = false, until deadline: Deadline, alertable: Bool
    ) -> WaitResult {
        let thread = APCQueue.current
        lock.lock()
        if let result = take(events, all: all) {
            lock.unlock()
            return result
        }
        if alertable, thread.hasCalls {
            lock.unlock()
            thread.runCalls()
            return .routinesRan
        }
        let wait = Wait(events, all: all, by: thread)
        for event in events { event.enter(wait) }
        thread.alertableWait = alertable ? wait : nil
        while wait.result == nil {
            // A wake-up proves nothing, and neither does a timer: only the clock says that it is late (I1.8).
            if deadline.hasPassed {
                wait.end(.timedOut)
            } else {
                thread.woken.wait(lock, until: deadline)
            }
        }
        thread.alertableWait = nil
        lock.unlock()
        if wait.result == .routinesRan { thread.runCalls() }
        return wait.result!
    }

    /// Under the lock: what a wait would be let go with now. Consumes exactly that, and nothing else.
    static func take(_ events: [Event], all: Bool) -> WaitResult? {
        if all {
            guard !events.isEmpty, events.allSatisfy(\.state) else { return nil }
            for event in events { event.consume() }
            return .signalled(index: 0)
        }
        guard let index = events.firstIndex(where: \.state) else { return nil }
        events[index].consume()
        return .signalled(index: index)
    }
}

/// A thread that sleeps until something has happened. Guarded by `Dispatcher.lock`.
///
/// The thread that makes it happen settles the result and takes the wait out of every list; the thread that wakes up
/// later finds its result ready.
final class Wait {
    private let events: [Event]
    private let all: Bool
    /// The thread that sleeps; nil when none does, and `signalled` is to be called.
    private let thread: APCQueue?
    let signalled: (@Sendable () -> Void)?
    private(set) var result: WaitResult?

    init(_ events: [Event], all: Bool, by thread: APCQueue) {
        self.events = events
        self.all = all
        self.thread = thread
        signalled = nil
    }

    /// A registered wait: of a callback, not of a thread.
    init(_ event: Event, _ signalled: @escaping @Sendable () -> Void) {
        events = [event]
        all = false
        thread = nil
        self.signalled = signalled
    }

    func endIfSatisfied() {
        if self.result == nil, let result = Dispatcher.take(events, all: all) { end(result) }
    }

    /// What comes first settles it. The thread may wake up long after, and more may have come by then.
    func end(_ result: WaitResult) {
        guard self.result == nil else { return }
        self.result = result
        for event in events { event.leave(self) }
        thread?.woken.signal()
    }
}
