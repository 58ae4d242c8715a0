import Kernel

/// Notices that a running worker is blocked, while another could work in its place.
///
/// Windows learns this from its scheduler. Here a thread looks: while a port with several workers is active, once a
/// millisecond; when the port falls idle it stops looking and sleeps. A worker that is found in the same handler
/// twice, blocked both times, does not count against the limit until it runs again.
final class Sampler: @unchecked Sendable {
    static let interval = Duration.milliseconds(1)
    /// Looks without any news, after which the sampler goes to sleep.
    static let patience = 100

    private let monitor = Monitor()
    // Guarded by the monitor.
    private var isStirred = false
    private var isEnding = false
    private let port: PortReference
    private var thread: Kernel.Thread?
    /// Whether it looks at the moment. Guarded by the port's lock.
    private(set) var isWatching = false

    /// Under the port's lock.
    init(_ port: CompletionPort) {
        self.port = port.reference
        // Without a thread the port works as before; blocking is noticed when a handler says so.
        thread = try? Kernel.Thread("port sampler") { [self] in run() }
    }

    /// Under the port's lock: something happens at the port.
    func stir() {
        guard !isWatching, thread != nil else { return }
        isWatching = true
        monitor.locked {
            isStirred = true
            monitor.signal()
        }
    }

    /// Ends the thread. It takes no part in the port's life: it may be ended from anywhere, also from itself.
    func end() {
        monitor.locked {
            isEnding = true
            monitor.signal()
        }
    }

    private func run() {
        while waitUntilStirred() {
            var quiet = 0
            while quiet < Sampler.patience {
                if pause() { return }
                guard let hasNews = port.use({ $0.sample() }) else { return }
                quiet = hasNews ? 0 : quiet + 1
            }
            _ = port.use { port in port.lock.locked { isWatching = port.hasSuspects } }
            if isWatching { monitor.locked { isStirred = true } }
        }
    }

    private func waitUntilStirred() -> Bool {
        monitor.locked {
            while !isStirred && !isEnding { monitor.wait() }
            isStirred = false
            return !isEnding
        }
    }

    /// Waits for the next look. True when the sampler is to end.
    private func pause() -> Bool {
        let next = Deadline.after(Sampler.interval)
        return monitor.locked {
            while !isEnding, monitor.wait(until: next) {}
            return isEnding
        }
    }
}

extension CompletionPort {
    /// Under the lock: whether the limit, or nobody's waiting in the driver, holds somebody back.
    var hasSuspects: Bool {
        running >= concurrency && (!queue.isEmpty || (parked.top != nil && inKernel == 0))
    }

    /// One look. True when there was any news since the last one.
    func sample() -> Bool {
        var suspects: [(worker: Worker, turns: Int)] = []
        var hasNews = false
        lock.lock()
        let looks = hasSuspects
        for worker in tied {
            if worker.turns != worker.sampledTurns {
                hasNews = true
                worker.sampledTurns = worker.turns
                worker.wasSeenBlocked = false
            } else if looks && worker.state == .running || worker.state == .blocked && worker.wasSeenBlocked {
                suspects.append((worker, worker.turns))
            }
        }
        lock.unlock()
        let states = suspects.map { Kernel.Thread.state(of: $0.worker.threadID) }

        lock.lock()
        for (suspect, state) in zip(suspects, states) where suspect.worker.turns == suspect.turns {
            judge(suspect.worker, isBlocked: state == .blocked)
        }
        // Also those packets that were left for a worker which has not come back.
        let wakes = releaseWaiters()
        lock.unlock()
        if wakes { driver.wake() }
        return hasNews
    }

    private func judge(_ worker: Worker, isBlocked: Bool) {
        switch worker.state {
        case .running where isBlocked && worker.wasSeenBlocked:
            worker.state = .blocked
            running -= 1
        case .running:
            worker.wasSeenBlocked = isBlocked
        case .blocked where !isBlocked:
            // It runs again: the number may exceed the limit until workers come back.
            worker.state = .running
            worker.wasSeenBlocked = false
            running += 1
        default: break
        }
    }
}
