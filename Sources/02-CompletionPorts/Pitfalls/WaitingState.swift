/// Where everything stands, in single bytes without gaps between them: so two of them are equal when their bytes are.
struct WaitingState {
    enum Place: UInt8 {
        /// Outside, in a handler.
        case handler
        /// Has given the lock back, and is about to wake the driver.
        case wakes
        case parked
        /// In the driver: about to look, about to call `epoll_wait`, asleep there, woken, about to take the answers.
        case asks, calls, sleeps, woken, reaps
        /// Out of the driver, and about to take the lock.
        case returns
        /// Its thread has ended.
        case gone
    }
    enum Counted: UInt8 { case running, blocked, away, inKernel, parked }
    enum Release: UInt8 { case none, packet, place, end }
    enum Time: UInt8 { case none, ahead, passed }
    enum Purpose: UInt8 { case wait, pollBeforeSleep, lookBeforeWait, lookBeforePost }

    struct Thread {
        var at = Place.handler
        var next = Place.handler
        var state = Counted.parked
        var release = Release.none
        var deadline = Time.none
        var purpose = Purpose.wait
        var ticket: Int8 = 0
        var brought: Int8 = 0
        var hasWaited = false
        var isBlocked = false

        /// It counts as running again.
        mutating func isDoneWaiting() {
            state = .running
            deadline = .none
            purpose = .wait
            hasWaited = false
            ticket = 0
        }
    }

    // What the lock guards.
    var running: Int8 = 0
    var inKernel: Int8 = 0
    var promised: Int8 = 0
    var queued: Int8 = 0
    var turnsWithoutKernel: Int8 = 0
    var isWaking = false
    var isClosed = false
    var isWatching = false
    /// More run than the limit says, for one of the stated reasons, and not enough of them have come back yet.
    var isExcused = false

    // The kernel's.
    /// `wake` has been called, and completions are ready, and nobody has taken them.
    var isAlarmed = false
    var ready: Int8 = 0
    /// The ring's descriptor has changed since a waiter was told.
    var hasChanged = false
    /// Who sleeps in `epoll_wait`, the newest first.
    var sleepers = Sleepers()

    // Packets that came, were taken by workers, and were dropped.
    var arrived: Int8 = 0
    var taken: Int8 = 0
    var dropped: Int8 = 0

    // What may still happen.
    var posts: Int8 = 0
    var handlerPosts: Int8 = 0
    var completions: Int8 = 0
    var ownCompletions: Int8 = 0
    var foreignCompletions: Int8 = 0
    var timeouts: Int8 = 0
    var blocks: Int8 = 0
    var saysSo: Int8 = 0
    var ends: Int8 = 0

    /// Three workers, a thread that is none, and the sampler.
    private var threads = InlineArray<5, Thread>(repeating: Thread())
    static let outsider = 3
    static let sampler = 4

    init(_ setting: WaitingSetting) {
        posts = setting.posts
        handlerPosts = setting.handlerPosts
        completions = setting.completions
        ownCompletions = setting.ownCompletions
        foreignCompletions = setting.foreignCompletions
        timeouts = setting.timeouts
        blocks = setting.blocks
        saysSo = setting.saysSo
        ends = setting.ends
        for worker in setting.workers..<WaitingState.outsider { self[worker].at = .gone }
    }

    subscript(_ thread: Int) -> Thread {
        get { threads[thread] }
        set { threads[thread] = newValue }
        _modify { yield &threads[thread] }
    }

    var newestTicket: Int8 { max(self[0].ticket, self[1].ticket, self[2].ticket) }

    /// The newest of the parked workers that nobody has released yet.
    var topOfStack: Int? {
        var top: Int?
        for worker in 0..<WaitingState.outsider
        where self[worker].at == .parked && self[worker].release == .none {
            if top == nil || self[worker].ticket > self[top!].ticket { top = worker }
        }
        return top
    }

    /// The ticket of the newest of those in the driver whom no packet is promised; 0 without any.
    var newestInKernel: Int8 {
        var newest = Int8.max
        for _ in 0...promised {
            var next: Int8 = 0
            for worker in 0..<WaitingState.outsider
            where self[worker].state == .inKernel && self[worker].ticket < newest {
                next = max(next, self[worker].ticket)
            }
            newest = next
        }
        return newest
    }

    /// Tickets grow for ever; what matters is who is newer. So they become 1, 2, 3.
    mutating func renumberTickets() {
        let old = (self[0].ticket, self[1].ticket, self[2].ticket)
        func rank(_ ticket: Int8) -> Int8 {
            if ticket == 0 { return 0 }
            return 1 + (old.0 > 0 && old.0 < ticket ? 1 : 0) + (old.1 > 0 && old.1 < ticket ? 1 : 0)
                + (old.2 > 0 && old.2 < ticket ? 1 : 0)
        }
        self[0].ticket = rank(old.0)
        self[1].ticket = rank(old.1)
        self[2].ticket = rank(old.2)
    }

    /// At most five, none of them twice; 0 is no thread.
    struct Sleepers {
        private var places = InlineArray<5, Int8>(repeating: 0)

        var isEmpty: Bool { places[0] == 0 }

        mutating func push(_ thread: Int) {
            for place in stride(from: 4, to: 0, by: -1) { places[place] = places[place - 1] }
            places[0] = Int8(thread + 1)
        }

        mutating func pop() -> Int? {
            guard !isEmpty else { return nil }
            let newest = Int(places[0]) - 1
            remove(newest)
            return newest
        }

        mutating func remove(_ thread: Int) {
            var kept = 0
            for place in 0..<5 where places[place] != Int8(thread + 1) {
                places[kept] = places[place]
                kept += 1
            }
            while kept < 5 {
                places[kept] = 0
                kept += 1
            }
        }
    }
}
