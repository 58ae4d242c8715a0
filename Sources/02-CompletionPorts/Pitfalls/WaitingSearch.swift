import Glibc

/// Tries everything that may happen at a port of a setting, in every order, and holds each state against the rules.
/// It goes forward from the beginning in breadth, so what it finds it finds on a shortest way.
public struct WaitingSearch {
    /// A rule that does not hold.
    public struct Finding: Sendable {
        /// Which.
        public let rule: String
        /// What happened, from the beginning on, a line each.
        public let schedule: [String]
    }

    /// Every state that can be reached.
    public private(set) var states = 0
    /// Every transition between them.
    public private(set) var transitions = 0
    /// States in which nothing moves unless something comes from outside.
    public private(set) var rests = 0
    /// The first of each rule.
    public private(set) var findings: [Finding] = []

    private let setting: WaitingSetting
    private var seen: [WaitingState] = []
    /// How a state was reached first.
    private var origins: [Origin] = []
    /// The numbers of states, at their places; -1 where there is none.
    private var table = [Int32](repeating: -1, count: 1 << 12)

    private var comesToRest: [Bool] = []
    /// From which state to which one comes without anything from outside.
    private var ownWays: [(from: Int32, to: Int32)] = []

    private struct Origin {
        let state: Int32
        let event: WaitingEvent
        let thread: UInt8
    }

    /// Searches everything; or, if told so, up to the first finding.
    public init(_ setting: WaitingSetting, untilFinding: Bool = false) {
        self.setting = setting
        _ = add(WaitingState(setting), Origin(state: -1, event: .step, thread: 0))
        var next = 0
        while next < seen.count, !(untilFinding && !findings.isEmpty) {
            follow(next)
            next += 1
        }
        states = seen.count
        if next == states { findRestless() }
    }

    /// Whether every state comes to rest by itself, at least on one way: otherwise threads could wake one another for
    /// ever, and no state of rest would show it.
    private mutating func findRestless() {
        ownWays.sort { $0.to < $1.to }
        var firstTo = [Int](repeating: 0, count: states + 1)
        for way in ownWays { firstTo[Int(way.to) + 1] += 1 }
        for state in 0..<states { firstTo[state + 1] += firstTo[state] }
        var reached = comesToRest.indices.filter { comesToRest[$0] }
        while let state = reached.popLast() {
            for way in firstTo[state]..<firstTo[state + 1] {
                let from = Int(ownWays[way].from)
                if !comesToRest[from] {
                    comesToRest[from] = true
                    reached.append(from)
                }
            }
        }
        if let restless = comesToRest.firstIndex(of: false) { note("threads never come to rest", restless) }
    }

    private mutating func follow(_ number: Int) {
        var model = WaitingModel(setting)
        let state = seen[number]
        var isAtRest = true
        for event in WaitingSearch.events {
            for thread in event.threads {
                model.goesOtherWay = false
                repeat {
                    model.now = state
                    model.hasOtherWay = false
                    model.mayExceed = false
                    guard model.make(event, thread) else { break }
                    model.now.settle(setting)
                    transitions += 1
                    let origin = Origin(state: Int32(number), event: event, thread: UInt8(thread))
                    let reached = add(model.now, origin)
                    if event.isInternal, reached != Int32(number) {
                        isAtRest = false
                        ownWays.append((Int32(number), reached))
                    }
                    if let rule = model.violation(after: state) { note(rule, Int(reached)) }
                    if !model.hasOtherWay || model.goesOtherWay { break }
                    model.goesOtherWay = true
                } while true
            }
        }
        if isAtRest {
            rests += 1
            comesToRest[number] = true
            model.now = state
            if let rule = model.violationAtRest { note(rule, number) }
        }
    }

    private static let events = WaitingEvent.allCases

    /// Returns the number of a state, which is a new one if it has not been seen.
    private mutating func add(_ state: WaitingState, _ origin: Origin) -> Int32 {
        var place = place(of: state)
        while table[place] >= 0 {
            if seen[Int(table[place])].isEqual(to: state) { return table[place] }
            place = (place + 1) & (table.count - 1)
        }
        let number = Int32(seen.count)
        table[place] = number
        seen.append(state)
        origins.append(origin)
        comesToRest.append(false)
        if seen.count * 2 > table.count { grow() }
        return number
    }

    private mutating func grow() {
        table = [Int32](repeating: -1, count: table.count * 4)
        for number in seen.indices {
            var place = place(of: seen[number])
            while table[place] >= 0 { place = (place + 1) & (table.count - 1) }
            table[place] = Int32(number)
        }
    }

    private func place(of state: WaitingState) -> Int { state.hashed & (table.count - 1) }

    private mutating func note(_ rule: String, _ number: Int) {
        guard !findings.contains(where: { $0.rule == rule }) else { return }
        var way: [Int] = []
        var state = number
        while origins[state].state >= 0 {
            way.append(state)
            state = Int(origins[state].state)
        }
        findings.append(Finding(rule: rule, schedule: way.reversed().map { line($0) }))
    }

    private func line(_ number: Int) -> String {
        let origin = origins[number]
        let before = seen[Int(origin.state)]
        let after = seen[number]
        return before.words(origin.event, Int(origin.thread), after) + " (\(after.summary))"
    }
}

extension WaitingState {
    /// After a transition: what makes no difference is made equal.
    mutating func settle(_ setting: WaitingSetting) {
        renumberTickets()
        if running + promised <= setting.limit { isExcused = false }
        for thread in 0..<5 {
            if self[thread].at != .wakes { self[thread].next = .handler }
            switch self[thread].at {
            case .asks, .calls, .sleeps, .woken, .reaps, .returns: break
            default: self[thread].purpose = .wait
            }
        }
    }

    var hashed: Int {
        withUnsafeBytes(of: self) { bytes in
            var hasher = Hasher()
            hasher.combine(bytes: bytes)
            return hasher.finalize()
        }
    }

    func isEqual(to other: WaitingState) -> Bool {
        withUnsafeBytes(of: self) { own in
            withUnsafeBytes(of: other) { memcmp(own.baseAddress!, $0.baseAddress!, own.count) == 0 }
        }
    }
}
