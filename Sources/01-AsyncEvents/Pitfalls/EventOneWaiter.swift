import AsyncEvents
import Kernel
import Stage

/// Four threads are to share the work of completed receives.
enum EventOneWaiter {
    static let pitfall = Pitfall(
        slug: "event-one-waiter",
        title:
            "several threads wait for one request: all of them handle it, or one does and the others starve",
        broken: { try broken($0) }, fixed: { try fixed($0) })

    static let threads = 4

    static func broken(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let manual = try BrokenSharedWait(.manual).run(stand)
        let automatic = try BrokenSharedWait(.automatic).run(stand)
        return Observation(
            happened: manual == 4 && automatic == 1,
            lines: [
                "one receive, four threads wait for its event with manual reset: handled \(manual) times",
                "with automatic reset: handled \(automatic) time, and \(threads - automatic) threads waited in vain",
            ])
    }

    /// As far as events go: a request has one waiter, so four threads need four requests.
    static func fixed(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let (client, server) = try stand.connection()
        let handled = (0..<threads).map { _ in Counter() }
        // Receives are filled in the order in which they were posted, each with one byte.
        let requests = (0..<threads).map { _ in Stand.operation(Event(.automatic)) }
        let memory = Memory(threads)
        for (index, request) in requests.enumerated() {
            try server.receive(request, into: .init(rebasing: memory.bytes[index..<index + 1]))
        }
        try client.say("abcd")
        inThreads(threads) { index in
            let event = requests[index].event as? Event
            // The second time there is nothing left to take: a completion is handled once.
            for deadline in [Deadline.after(Gate.patience), .after(.milliseconds(20))]
            where event?.wait(until: deadline) == .signalled(index: 0) {
                handled[index].add()
            }
        }
        let counts = handled.map(\.value)
        return Observation(
            happened: counts != [1, 1, 1, 1] || memory.text(threads) != "abcd",
            lines: ["four receives, a thread for each: handled \(counts) times, \"\(memory.text(threads))\""])
    }
}

/// Threads that wait for the same event, and handle its request when they are let go.
struct BrokenSharedWait {
    let mode: Event.Reset

    init(_ mode: Event.Reset) { self.mode = mode }

    /// How many threads handled the one completion.
    func run(_ stand: Stand) throws -> Int {
        let (client, server) = try stand.connection()
        let event = Event(mode)
        let request = Stand.operation(event)
        let memory = Memory(1)
        try server.receive(request, into: memory.bytes)
        try client.say("a")
        // The event is set. Who does not get through now does not get through at all.
        _ = request.wait(until: .after(Gate.patience))
        let handled = Counter()
        inThreads(EventOneWaiter.threads) { _ in
            if event.wait(until: .after(.milliseconds(100))) == .signalled(index: 0) { handled.add() }
        }
        return handled.value
    }
}
