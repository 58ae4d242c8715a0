/// What may happen next, and the drivers.
enum WaitingEvent: UInt8, CaseIterable {
    // Goes on by itself, sooner or later.
    case step, samplerLooks
    // Done by a worker outside, or to it.
    case asks, asksForAWhile, posts, completesOwn, blocks, unblocks, saysBlocking, isBack, ends
    // From elsewhere.
    case timePasses, outsiderPosts, outsiderDelivers, closes, completes, completesWhatASleeperSubmitted

    /// Whether it has to happen, if nothing else does.
    var isInternal: Bool { self == .step || self == .samplerLooks }

    var threads: Range<Int> {
        switch self {
        case .step: 0..<5
        case .samplerLooks: WaitingState.sampler..<WaitingState.sampler + 1
        case .outsiderPosts, .outsiderDelivers, .closes, .completes:
            WaitingState.outsider..<WaitingState.outsider + 1
        default: 0..<3
        }
    }
}

extension WaitingModel {
    /// Makes a transition. False when it is not possible now, and nothing has changed.
    mutating func make(_ event: WaitingEvent, _ thread: Int) -> Bool {
        let isOutside = now[thread].at == .handler
        let isFree = isOutside && !now[thread].isBlocked && now[thread].state != .away
        switch event {
        case .step: return step(thread)
        case .samplerLooks:
            guard isOutside, now.isWatching, !now.isClosed else { return false }
            sample(thread)
        case .asks:
            guard isFree else { return false }
            ask(thread, withTimeout: false)
        case .asksForAWhile:
            guard isFree, use(&now.timeouts) else { return false }
            ask(thread, withTimeout: true)
        case .posts:
            guard isFree, now[thread].state == .running, use(&now.handlerPosts) else { return false }
            beginPost(thread)
        case .completesOwn:
            guard isFree, now[thread].state == .running, use(&now.ownCompletions) else { return false }
            take(thread)
        case .blocks:
            guard isFree, now[thread].state == .running, use(&now.blocks) else { return false }
            now[thread].isBlocked = true
        case .unblocks:
            guard now[thread].isBlocked else { return false }
            now[thread].isBlocked = false
        case .saysBlocking:
            guard isFree, now[thread].state != .parked, use(&now.saysSo) else { return false }
            sayBlocking(thread)
        case .isBack:
            guard isOutside, now[thread].state == .away else { return false }
            isBack(thread)
        case .ends:
            guard isFree, now[thread].state != .parked, use(&now.ends) else { return false }
            untie(thread)
        case .timePasses:
            guard now[thread].deadline == .ahead else { return false }
            now[thread].deadline = .passed
        case .outsiderPosts:
            guard isOutside, use(&now.posts) else { return false }
            beginPost(thread)
        case .outsiderDelivers:
            guard isOutside, use(&now.foreignCompletions) else { return false }
            take(thread)
        case .closes:
            guard isOutside, setting.closes, !now.isClosed else { return false }
            close(thread)
        case .completes:
            guard use(&now.completions) else { return false }
            complete()
        case .completesWhatASleeperSubmitted:
            guard setting.interface == .ring, now[thread].at == .sleeps, use(&now.completions) else {
                return false
            }
            // The kernel finishes a request in the thread that submitted it. For that it leaves the list of sleepers.
            now.sleepers.remove(thread)
            now[thread].at = .reaps
            complete()
        }
        return true
    }

    private func use(_ budget: inout Int8) -> Bool {
        guard budget > 0 else { return false }
        budget -= 1
        return true
    }

    /// What a thread does next when nobody tells it anything.
    private mutating func step(_ thread: Int) -> Bool {
        switch now[thread].at {
        case .handler, .gone: return false
        case .wakes:
            now[thread].at = now[thread].next
            wakeDriver()
        case .parked:
            guard now[thread].release != .none || now[thread].deadline == .passed else { return false }
            beReleased(thread)
        case .asks, .calls, .woken, .reaps: return stepInDriver(thread)
        case .sleeps:
            guard now[thread].deadline == .passed else { return false }
            now.sleepers.remove(thread)
            now[thread].at = setting.interface == .epoll ? .returns : .reaps
        case .returns:
            switch now[thread].purpose {
            case .wait: comeOut(thread)
            case .pollBeforeSleep: havePolled(thread)
            case .lookBeforeWait, .lookBeforePost: haveLooked(thread)
            }
        }
        return true
    }

    // MARK: The drivers

    mutating func poll(_ thread: Int, _ purpose: WaitingState.Purpose) {
        now[thread].purpose = purpose
        now[thread].at = .asks
    }

    mutating func wakeDriver() {
        now.isAlarmed = true
        changeDriver()
    }

    private mutating func complete() {
        now.ready += 1
        changeDriver()
    }

    /// The descriptor that is waited for has news: one of those who sleep is told, the newest.
    private mutating func changeDriver() {
        now.hasChanged = setting.interface == .ring
        if let newest = now.sleepers.pop() { now[newest].at = .woken }
    }

    private var isAnythingThere: Bool { now.isAlarmed || now.ready > 0 }

    private func waitsNoLonger(_ thread: Int) -> Bool {
        now[thread].purpose != .wait || now[thread].deadline == .passed
    }

    /// One step of `collect`.
    private mutating func stepInDriver(_ thread: Int) -> Bool {
        switch (setting.interface, now[thread].at) {
        case (.epoll, _):
            // One call of epoll_wait, or its second half.
            if isAnythingThere || waitsNoLonger(thread) {
                takeAll(thread)
                now[thread].at = .returns
            } else {
                sleep(thread)
            }
        case (.ring, .asks): now[thread].at = isAnythingThere ? .reaps : .calls
        case (.ring, .reaps):
            let isWoken = now.isAlarmed
            takeAll(thread)
            let isOver = isWoken || now[thread].brought > 0 || waitsNoLonger(thread)
            now[thread].at = isOver ? .returns : .asks
        case (.ring, _):
            let isTold = now.hasChanged && isAnythingThere
            now.hasChanged = false
            if isTold || waitsNoLonger(thread) { now[thread].at = .reaps } else { sleep(thread) }
        }
        return true
    }

    private mutating func takeAll(_ thread: Int) {
        now.arrived += now.ready
        now[thread].brought += now.ready
        now.ready = 0
        now.isAlarmed = false
    }

    private mutating func sleep(_ thread: Int) {
        now[thread].at = .sleeps
        now.sleepers.push(thread)
    }
}
