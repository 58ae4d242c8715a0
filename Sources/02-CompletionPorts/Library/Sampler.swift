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
    // Guarded by the port's lock.
    /// Whether it looks at the moment.
    fileprivate(set) var isWatching = false
    fileprivate var looksWithoutNews = 0
    fileprivate var lastTurns = 0

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
        looksWithoutNews = 0
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
            repeat {
                if pause() { return }
            } while port.use({ $0.sample(for: self) }) ?? false
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
    /// Under the lock: whether a worker waits that could run, if one of the running were known to be blocked.
    private var hasSuspects: Bool {
        running >= concurrency
            && (parked.isEmpty ? inKernel > 0 && !queue.isEmpty : inKernel == 0 || !queue.isEmpty)
    }

    /// One look. True when another is to follow.
    func sample(for sampler: Sampler) -> Bool {
        var suspects: [Worker] = []
        var isLong = false
        lock.lock()
        let looks = hasSuspects
        for worker in tied {
            // What it has posted does not wait for it any longer (`Submission.afterBatch`).
            isLong = isLong || worker.state == .running && worker.ticket == worker.sampledTicket
            if worker.ticket != worker.sampledTicket {
                worker.sampledTicket = worker.ticket
                worker.wasSeenBlocked = false
            }
            if looks && worker.state == .running || worker.state == .blocked { suspects.append(worker) }
        }
        lock.unlock()
        if isLong { driver.flush() }
        let states = suspects.map { Kernel.Thread.state(of: $0.threadID) }

        lock.lock()
        for (suspect, state) in zip(suspects, states) {
            // Only if it is still this port's, and still in the same handler.
            guard tied.contains(where: { $0 === suspect }), suspect.ticket == suspect.sampledTicket else {
                continue
            }
            judge(suspect, isBlocked: state == .blocked)
        }
        sampler.looksWithoutNews = turns == sampler.lastTurns ? sampler.looksWithoutNews + 1 : 0
        sampler.lastTurns = turns
        let isNeeded = hasSuspects || inKernel > 0 && !queue.isEmpty
        let goesOn = isNeeded || sampler.looksWithoutNews < Sampler.patience
        sampler.isWatching = goesOn
        // Also those packets that were left for a worker which has not come back.
        unlockAndRelease()
        return goesOn
    }

    /// I2.8
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
