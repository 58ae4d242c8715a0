import CompletionPortsPitfalls
import Testing

/// Every order in which the sections of two workers, the driver's steps and everything from outside can follow one
/// another; `bench stress waiting` does the same for three workers.
@Suite struct Chapter02CompletionPortsModel {
    /// What may happen beside workers that ask, and that the port may be closed at any moment.
    enum Case: String, CaseIterable, CustomStringConvertible {
        case polling
        case timeOuts = "polling, and time-outs"
        case blocking = "blocking, noticed and said"
        case handlersPost = "handlers that post, and whose calls complete at once"
        case leaving = "threads that end, and completions from elsewhere"

        var description: String { rawValue }

        func setting(_ limit: Int8, _ interface: WaitingSetting.Interface) -> WaitingSetting {
            var setting = WaitingSetting(2, limit: limit, interface)
            setting.posts = 1
            setting.completions = 1
            switch self {
            case .polling:
                setting.polls = true
                setting.completions = 2
            case .timeOuts:
                setting.polls = true
                setting.timeouts = 1
            case .blocking:
                setting.blocks = 1
                setting.saysSo = 1
            case .handlersPost:
                setting.handlerPosts = 1
                setting.ownCompletions = 1
                setting.turnsBeforeKernel = 1
            case .leaving:
                setting.ends = 1
                setting.foreignCompletions = 1
            }
            return setting
        }
    }

    // I2.1, I2.6, I2.7, I2.8, I2.9
    @Test("explored: two workers at a limit of 1, in every order", arguments: Case.allCases)
    func limitOfOne(_ what: Case) {
        // A ring whose limit is 1 has one waiter, who is woken by every answer: that is no more than this.
        let search = WaitingSearch(what.setting(1, .epoll))
        #expect(search.findings.isEmpty)
        #expect(search.states > 5_000 && search.rests > 300)
    }

    @Test(
        "explored: two workers at a limit of 2, in every order, on both drivers",
        arguments: Case.allCases, WaitingSetting.Interface.allCases)
    func limitOfTwo(_ what: Case, _ interface: WaitingSetting.Interface) {
        let search = WaitingSearch(what.setting(2, interface))
        #expect(search.findings.isEmpty)
        #expect(search.states > 10_000 && search.rests > 300)
    }

    @Test("explored: without the cure, the shortest way to lose a wake-up is the book's")
    func lostWakeUp() {
        for interface in WaitingSetting.Interface.allCases {
            let search = WaitingSearch(
                WaitingSetting.with(.pollEatsTheWakeUp, interface), untilFinding: false)
            let lost = search.findings.first {
                $0.rule == "I2.7: a packet is promised, and nobody comes for it"
            }
            if interface == .epoll {
                #expect(
                    lost?.schedule == [
                        "A asks, and polls in the driver (running 0, in the driver 1)",
                        "B asks, and goes into the driver (running 0, in the driver 2)",
                        "a request completes (running 0, in the driver 2)",
                        "a request completes (running 0, in the driver 2)",
                        "B asks the driver: 2 completed (running 0, in the driver 2)",
                        "B has the lock, takes a packet, and is to wake the driver"
                            + " (running 1, in the driver 1, queued 1, isWaking)",
                        "B wakes the driver (running 1, in the driver 1, queued 1, isWaking)",
                        "A looks into the driver: the wake-up (running 1, in the driver 1, queued 1, isWaking)",
                        "B asks, takes a packet (running 1, in the driver 1, isWaking)",
                        "A finds nothing to do, and will sleep (running 1, in the driver 1, isWaking)",
                        "A asks the driver, and sleeps (running 1, in the driver 1, isWaking)",
                        "another thread posts a packet (running 1, in the driver 1, promised 1, isWaking)",
                    ])
            } else {
                #expect(lost != nil)
            }
            #expect(search.findings.contains { $0.rule.hasPrefix("I2.9") })
        }
    }

    @Test(
        "explored: each line that is left out of the scheme, or wrong, breaks a rule",
        arguments: WaitingFault.allCases.filter { $0 != .joinsThePromised })
    func faults(_ fault: WaitingFault) {
        let search = WaitingSearch(WaitingSetting.with(fault, .epoll), untilFinding: true)
        #expect(search.findings.first.map { fault.breaks.contains(String($0.rule.prefix(4))) } == true)
    }

    @Test(
        "explored: that nobody joins those who are being woken serves the order alone, and no packet depends on it"
    )
    func onlyTheOrder() {
        #expect(WaitingSearch(WaitingSetting.with(.joinsThePromised, .epoll)).findings.isEmpty)
    }
}

extension WaitingSetting {
    /// A scheme with a fault, and what is needed to see it.
    fileprivate static func with(_ fault: WaitingFault, _ interface: Interface) -> WaitingSetting {
        var setting = WaitingSetting(2, limit: fault.limit, interface)
        setting.fault = fault
        setting.posts = 1
        setting.completions = 2
        setting.polls = fault == .pollEatsTheWakeUp
        setting.saysSo = setting.polls ? 0 : 1
        setting.turnsBeforeKernel = 1
        // It sees to what a worker has left, after a while.
        setting.noticesBlocking = fault != .leavesInSilence && !setting.polls
        return setting
    }
}

extension WaitingFault {
    fileprivate var limit: Int8 {
        switch self {
        case .oneTooManyInTheDriver, .forgetsPromises: 1
        default: 2
        }
    }

    /// The beginnings of the rules of which one is broken first.
    fileprivate var breaks: [String] {
        switch self {
        case .oneTooManyInTheDriver, .forgetsPromises: ["I2.6"]
        case .closesInSilence, .departsInSilence: ["I2.9"]
        case .staysWaking: ["a wa"]
        case .pollEatsTheWakeUp: ["a wa", "I2.9"]
        default: ["I2.7", "I2.9"]
        }
    }
}
