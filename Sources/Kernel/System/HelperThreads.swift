/// A few threads for work that would block, such as the disk's. They start when there is work, and end with their owner.
///
/// They refer to this object and not to its owner. So the last reference to a driver may well go on one of them, when it has
/// delivered what it completed; that is why the end does not wait for them.
final class HelperThreads<Work>: @unchecked Sendable {
    private let name: String
    private let limit: Int
    private let carryOut: @Sendable (Work) -> Void

    private let monitor = Monitor()
    // Guarded by the monitor.
    private var waiting = CircularQueue<Work>()
    private var threads = 0
    private var idle = 0
    private var ending = false

    /// No thread yet; `limit` of them at most, each of which calls `carryOut` for one piece of work after the other.
    init(_ name: String, limit: Int, _ carryOut: @escaping @Sendable (Work) -> Void) {
        self.name = name
        self.limit = limit
        self.carryOut = carryOut
    }

    /// Has the work carried out soon.
    func run(_ work: Work) {
        let hasThread = monitor.locked {
            waiting.append(work)
            if idle >= waiting.count {
                monitor.signal()
            } else if threads < limit,
                (try? Thread(name, { while self.carryOutNext(waits: true) {} })) != nil
            {
                threads += 1
            }
            return threads > 0
        }
        // With one helper running, a failure to start another only makes the queue longer. Without any, the caller carries
        // the work out, and waits for the disk.
        if !hasThread { while carryOutNext(waits: false) {} }
    }

    private func carryOutNext(waits: Bool) -> Bool {
        guard let work = next(waits) else { return false }
        carryOut(work)
        return true
    }

    private func next(_ waits: Bool) -> Work? {
        monitor.locked {
            idle += 1
            defer { idle -= 1 }
            while waits && waiting.isEmpty && !ending { monitor.wait() }
            return waiting.popFirst()
        }
    }

    /// Ends the threads, soon. Called when there can be no work any more.
    func end() {
        monitor.locked {
            ending = true
            monitor.broadcast()
        }
    }
}
