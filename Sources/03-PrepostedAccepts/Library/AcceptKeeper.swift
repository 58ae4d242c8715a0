import Kernel

/// What no packet tells, a thread has to look for: it sleeps until one of its deadlines, and has no other work.
extension AcceptPool {
    func keep() {
        while true {
            let start = monotonicNanoseconds()
            let goesOn = monitor.locked {
                while !isStopping, !nextDeadline.hasPassed { monitor.wait(until: nextDeadline) }
                return !isStopping
            }
            guard goesOn else { return }
            sweep(after: start, at: monotonicNanoseconds())
            if monitor.locked({ retryAt.hasPassed }) { resumeOne() }
            if monitor.locked({ nextLook.hasPassed }) { shrink() }
        }
    }

    /// Under the monitor. While others wait for a place, the keeper does not wait for its turn: it comes when the
    /// first silent client's time is over (I3.4).
    private var nextDeadline: Deadline {
        var deadline = min(nextLook, retryAt)
        if isShort, let limit = options.silenceLimit {
            let longest = pending.lazy.filter(\.isPending).compactMap(\.socket.connectTime).max() ?? .zero
            deadline = min(deadline, max(judgesAt, .after(limit - longest)))
        }
        return deadline
    }

    /// A round of the keeper, which began to wait for it at `start`. After a pause of the whole program the clients have
    /// had no chance yet: then no client is ended before the next look (I3.11).
    package func sweep(after start: UInt64, at now: UInt64) {
        if rounds.mayJudge(after: start, at: now) {
            sweep()
        } else {
            monitor.locked { judgesAt = .after(.nanoseconds(Int64(rounds.earliest - now))) }
        }
    }

    /// Ends the clients that have held an accept for longer than allowed. Their accepts come back as cancelled.
    ///
    /// The monitor is held from the look to the last close: who looks and who takes an accept out of the list are
    /// never inside it together, so no socket is closed that has meanwhile become another client's (I3.4).
    ///
    /// - Parameter beforeEnding: Called between the look and the closing, if any client is to be ended. For tests.
    /// - Returns: How many were ended.
    @discardableResult
    public func sweep(_ beforeEnding: () -> Void = {}) -> Int {
        guard let limit = options.silenceLimit else { return 0 }
        return monitor.locked {
            let silent = pending.filter { $0.isPending && ($0.socket.connectTime ?? .zero) >= limit }
            guard !silent.isEmpty else { return 0 }
            beforeEnding()
            for acceptance in silent { acceptance.socket.close() }
            count.swept += silent.count
            isShort = false
            return silent.count
        }
    }

    /// Makes the pool smaller by half, down to its initial size, when it has not been short since the last look (I3.3).
    ///
    /// While clients come, that is all: accepts that complete are not posted again. When no client has come, the surplus is
    /// cancelled, the newest first, since the next client gets the oldest: an accept that is cancelled at the moment
    /// when its client comes takes that client with it.
    private func shrink() {
        let held = listener.acceptsAwaitingData
        let surplus = monitor.locked { () -> [Acceptance] in
            nextLook = .after(options.lookInterval)
            let isQuiet = seenAtLastLook == (settled, held)
            defer {
                wasShortSinceLastLook = false
                seenAtLastLook = (settled, held)
            }
            guard !wasShortSinceLastLook, max(size, pending.count) > options.initial else { return [] }
            size = max(options.initial, size / 2)
            guard isQuiet else { return [] }
            let waiting = pending.filter { $0.socket.connectTime == nil }.sorted { $0.ticket > $1.ticket }
            return Array(waiting.prefix(max(0, min(pending.count - size, waiting.count - options.initial))))
        }
        for acceptance in surplus where listener.acceptsAwaitingData <= held {
            listener.cancel(acceptance)
        }
    }
}
