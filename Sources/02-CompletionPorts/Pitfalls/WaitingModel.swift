/// The waiting scheme of a port without its threads: who waits where, who is woken, and what lies between two sections
/// under the lock. What a thread would do in one go is one function here, written after `Dequeue.swift` line for line;
/// between two of them any other thread may come. Packets are only counted.
///
/// One transition is one section under the port's lock, or one step of the driver: a system call, a wake-up.
/// ``WaitingSearch`` tries all of them in every order.
struct WaitingModel {
    let setting: WaitingSetting
    var now: WaitingState
    /// Which of two ways a transition goes, and whether it had two.
    var goesOtherWay = false
    var hasOtherWay = false
    /// The sum of I2.6 may grow beyond the limit in this transition.
    var mayExceed = false

    init(_ setting: WaitingSetting) {
        self.setting = setting
        now = WaitingState(setting)
    }

    // MARK: Arriving and leaving

    /// `arrive`, and `wait` up to the place where it gives the lock back.
    mutating func ask(_ worker: Int, withTimeout: Bool) {
        if now[worker].state == .running { now.running -= 1 }
        now[worker].state = .parked
        now[worker].ticket = now.newestTicket + 1
        now[worker].deadline = withTimeout ? .ahead : .none
        if now.turnsWithoutKernel >= setting.turnsBeforeKernel, canLook {
            lookIntoDriver(worker, .lookBeforeWait)
        } else {
            wait(worker)
        }
    }

    private mutating func leave(_ worker: Int) {
        now.taken += 1
        now[worker].isDoneWaiting()
        now.running += 1
        now.turnsWithoutKernel = min(now.turnsWithoutKernel + 1, setting.turnsBeforeKernel)
        stirSampler()
        if setting.fault == .leavesInSilence { return now[worker].at = .handler }
        unlockAndRelease(worker, giving: false)
    }

    private mutating func depart(_ worker: Int) {
        now[worker].isDoneWaiting()
        now.running += 1
        mayExceed = true
        now.isExcused = now.isExcused || now.running + now.promised > setting.limit
        if setting.fault == .departsInSilence { return now[worker].at = .handler }
        unlockAndRelease(worker)
    }

    // MARK: Waiting

    mutating func wait(_ worker: Int) {
        while true {
            if now.queued > 0, hasRoom || now.isClosed {
                guard let newer = now.topOfStack, now[newer].ticket > now[worker].ticket, !now.isClosed else {
                    now.queued -= 1
                    mayExceed = true
                    return leave(worker)
                }
                hand(to: newer)
                continue
            }
            if now.isClosed || now[worker].hasWaited && now[worker].deadline == .passed {
                return depart(worker)
            }
            now[worker].hasWaited = true
            let room = setting.limit + (setting.fault == .oneTooManyInTheDriver ? 1 : 0)
            if now.running + now.inKernel < room, now.promised == 0 || setting.fault == .joinsThePromised {
                now.inKernel += 1
                return askKernel(worker)
            }
            now[worker].at = .parked
            return stirSampler()
        }
    }

    /// What `park` returns, and `wait` goes on with.
    mutating func beReleased(_ worker: Int) {
        let release = now[worker].release
        now[worker].release = .none
        // Off the stack.
        now[worker].at = .returns
        switch release {
        case .packet:
            // Counted as running since it was handed over; `leave` counts it now.
            now.running -= 1
            leave(worker)
        case .place: askKernel(worker)
        case .end, .none: wait(worker)
        }
    }

    /// Under the limit, for one more packet.
    private var hasRoom: Bool {
        now.running + (setting.fault == .forgetsPromises ? 0 : now.promised) < setting.limit
    }

    private mutating func askKernel(_ worker: Int) {
        now[worker].state = .inKernel
        now.turnsWithoutKernel = 0
        poll(worker, setting.polls && now.inKernel == 1 ? .pollBeforeSleep : .wait)
    }

    /// `askKernel`, when the driver has been asked and the lock is there again.
    mutating func comeOut(_ worker: Int) {
        enqueue(worker)
        now.inKernel -= 1
        if setting.fault != .staysWaking { now.isWaking = false }
        now[worker].state = .parked
        if now.promised > 0 {
            now.promised -= 1
            leave(worker)
        } else {
            wait(worker)
        }
    }

    private var canLook: Bool { now.inKernel == 0 && !now.isClosed }

    private mutating func lookIntoDriver(_ thread: Int, _ purpose: WaitingState.Purpose) {
        now.turnsWithoutKernel = 0
        poll(thread, purpose)
    }

    /// `lookIntoDriver`, with the lock again, and what comes behind it.
    mutating func haveLooked(_ thread: Int) {
        enqueue(thread)
        if now.isWaking, setting.fault != .looksAndKeepsTheWakeUp { wakeDriver() }
        if now[thread].purpose == .lookBeforeWait { wait(thread) } else { post(thread) }
    }

    /// `pollBeforeSleep`, after one look.
    mutating func havePolled(_ worker: Int) {
        let isReached =
            setting.fault == .pollEatsTheWakeUp ? now.promised > 0 || now.isClosed : now.isWaking
        if now[worker].brought > 0 || isReached || now.queued > 0 {
            now[worker].purpose = .wait
        } else {
            // The time for polling is over, or it is not.
            hasOtherWay = true
            poll(worker, goesOtherWay ? .pollBeforeSleep : .wait)
        }
    }

    // MARK: Releasing

    private mutating func hand(to newest: Int) {
        now[newest].release = .packet
        now.queued -= 1
        now.running += 1
        mayExceed = true
    }

    private mutating func unlockAndRelease(
        _ thread: Int, then place: WaitingState.Place = .handler, giving: Bool = true
    ) {
        let isAnybody =
            now.inKernel > 0
            ? now.queued > 0 || now.promised > 0 || now.isClosed : now.topOfStack != nil
        if isAnybody, giving { give() }
        let wakes = isAnybody && releaseSomebody()
        now[thread].next = place
        now[thread].at = wakes ? .wakes : place
    }

    private mutating func give() {
        while now.queued > 0, !now.isClosed, hasRoom {
            if let newest = now.topOfStack, now[newest].ticket > now.newestInKernel {
                hand(to: newest)
            } else if now.inKernel > now.promised {
                now.promised += 1
                now.queued -= 1
            } else {
                return
            }
        }
    }

    private mutating func releaseSomebody() -> Bool {
        while now.running + now.inKernel < setting.limit, let newest = now.topOfStack {
            if now.queued > 0, now[newest].ticket > now.newestInKernel {
                hand(to: newest)
            } else if now.inKernel == 0, setting.fault != .givesNoPlace {
                now.inKernel += 1
                now[newest].release = .place
                now[newest].state = .inKernel
            } else {
                break
            }
        }
        if now.running >= setting.limit { stirSampler() }
        let isSomebodyNeeded =
            now.isClosed || now.promised > 0 || now.queued > 0 && now.running < setting.limit
        guard now.inKernel > 0, !now.isWaking, isSomebodyNeeded else { return false }
        now.isWaking = true
        return true
    }

    // MARK: The rest of the port

    /// The lock is there, and the driver has been looked into if it has to be.
    private mutating func post(_ thread: Int) {
        guard !now.isClosed else { return now[thread].at = .handler }
        now.queued += 1
        now.arrived += 1
        unlockAndRelease(thread)
    }

    mutating func beginPost(_ thread: Int) {
        if canLook { lookIntoDriver(thread, .lookBeforePost) } else { post(thread) }
    }

    /// `take`: a completion that a thread brings without having waited for it.
    mutating func take(_ thread: Int) {
        now.arrived += 1
        now[thread].brought = 1
        enqueue(thread)
        let comesFromWorker = now[thread].state == .running && now.isWatching
        if now.inKernel > 0, comesFromWorker { return }
        unlockAndRelease(thread)
    }

    private mutating func enqueue(_ thread: Int) {
        if now.isClosed { now.dropped += now[thread].brought } else { now.queued += now[thread].brought }
        now[thread].brought = 0
    }

    mutating func close(_ thread: Int) {
        now.isClosed = true
        now.isWatching = false
        while let worker = now.topOfStack { now[worker].release = .end }
        if setting.fault == .closesInSilence { return }
        unlockAndRelease(thread)
    }

    /// `blocking`, before its body; behind it `isBack`.
    mutating func sayBlocking(_ worker: Int) {
        if now[worker].state == .running { now.running -= 1 }
        now[worker].state = .away
        unlockAndRelease(worker)
    }

    mutating func isBack(_ worker: Int) {
        now[worker].state = .running
        now.running += 1
        mayExceed = true
        now.isExcused = now.isExcused || now.running + now.promised > setting.limit
    }

    mutating func untie(_ worker: Int) {
        if now[worker].state == .running { now.running -= 1 }
        now[worker].state = .parked
        unlockAndRelease(worker, then: .gone)
    }

    // MARK: The sampler

    private mutating func stirSampler() {
        if setting.noticesBlocking, !now.isClosed { now.isWatching = true }
    }

    private var hasSuspects: Bool {
        now.running >= setting.limit
            && (now.topOfStack == nil
                ? now.inKernel > 0 && now.queued > 0 : now.inKernel == 0 || now.queued > 0)
    }

    /// `sample`: one look, by a thread of its own. The first of the two looks at a blocked worker changes nothing.
    mutating func sample(_ sampler: Int) {
        let looks = hasSuspects
        for worker in 0..<setting.workers {
            if now[worker].state == .blocked, !now[worker].isBlocked {
                isBack(worker)
            } else if looks, now[worker].state == .running, now[worker].isBlocked {
                now[worker].state = .blocked
                now.running -= 1
            }
        }
        // It goes on for a while without any need.
        hasOtherWay = true
        now.isWatching = hasSuspects || now.inKernel > 0 && now.queued > 0 || goesOtherWay
        unlockAndRelease(sampler)
    }
}
