extension Recording {
    /// One life of an operation, from *posted* to *handled*. An operation that is posted again begins a new life.
    public struct Life: Sendable {
        /// Which operation; 0 for a packet without one.
        public let operation: UInt
        /// What it was called: its label, or a number in the order of appearance.
        public internal(set) var label: String
        /// The lane of the thread that made its first record.
        public internal(set) var poster: Int
        /// The lane of the worker that took it.
        public internal(set) var worker: Int?
        /// Its moments in nanoseconds since the recording's start; `nil` where none was recorded.
        var moments: [Int?] = [nil, nil, nil, nil, nil]
        /// When its handling began. Later than *dequeued* if the worker took several packets at once.
        var begun: Int?
        /// When it was over without having been handled, or although that was not recorded: its post has told what came of
        /// it, its operation was posted again, or its worker went on.
        var ended: Int?
        /// How long what it has brought has waited for its turn; without an upper end when that has not come.
        var held: (from: Int, to: Int?)?

        /// When the operation reached a moment, since the recording's start.
        public subscript(moment: Moment) -> Duration? {
            moments[Int(moment.rawValue)].map { .nanoseconds($0) }
        }

        var last: Moment {
            Moment.allCases.last { moments[Int($0.rawValue)] != nil } ?? .posted
        }

        /// When it waited for its turn: from the end of its handling, so that the two lie side by side.
        func waited(until end: Int) -> Range<Int>? {
            guard let held else { return nil }
            let to = held.to ?? end
            return min(max(held.from, moments[4] ?? ended ?? held.from), to)..<to
        }

        /// When each phase lasted, in nanoseconds since the recording's start. A phase that had not ended lasts until
        /// `end`; moments that two threads wrote down in the wrong order give an empty phase.
        func phases(until end: Int) -> [(phase: Phase, time: Range<Int>)] {
            var edges = moments
            if let begun { edges[Int(Moment.dequeued.rawValue)] = begun }
            var latest = moments[4] ?? ended ?? end
            var result: [(phase: Phase, time: Range<Int>)] = []
            for phase in Phase.allCases.reversed() {
                guard let edge = edges[phase.rawValue] else { continue }
                let from = min(edge, latest)
                result.append((phase, from..<latest))
                latest = from
            }
            return result.reversed()
        }
    }

    /// Whether anything has waited for its turn.
    var hasHeld: Bool { records.contains { if case .held = $0.what { true } else { false } } }

    /// What each operation was posted as first, as far as it was posted during the recording.
    private var firstKinds: [UInt: String] {
        var kinds: [UInt: String] = [:]
        for record in records {
            if case .kind(let text) = record.what {
                kinds[record.operation] = kinds[record.operation] ?? text
            }
        }
        return kinds
    }

    /// The lives of all operations, in the order of their first records.
    public var lives: [Life] {
        var lives: [Life] = []
        var open: [UInt: [Int]] = [:]  // lives that are not over, oldest first
        var labels: [UInt: String] = [:]
        var unnamed: [UInt: String] = [:]  // by the kind of their first life, and a number
        let kinds = firstKinds
        var counts: [String: Int] = [:]
        var packets = 0
        var waiting: [UInt: Int] = [:]  // operation: its life that waits for its turn

        func label(_ operation: UInt) -> String {
            if let label = labels[operation] ?? unnamed[operation] { return label }
            if operation == 0 {
                packets += 1
                return "packet \(packets)"
            }
            let kind = kinds[operation] ?? "operation"
            counts[kind, default: 0] += 1
            let label = "\(kind) \(counts[kind]!)"
            unnamed[operation] = label
            return label
        }

        func begin(_ record: Record) -> Int {
            lives.append(
                Life(operation: record.operation, label: label(record.operation), poster: record.lane))
            open[record.operation, default: []].append(lives.count - 1)
            return lives.count - 1
        }

        for record in records {
            let operation = record.operation
            switch record.what {
            case .note: break
            case .kind: break
            case .held:
                guard let life = open[operation]?.last else { continue }
                lives[life].held = (record.nanoseconds, nil)
                waiting[operation] = life
            case .turn:
                guard let life = waiting.removeValue(forKey: operation) else { continue }
                lives[life].held?.to = record.nanoseconds
            case .label(let text):
                labels[operation] = text
                if let life = open[operation]?.last, lives[life].last < .dequeued { lives[life].label = text }
            case .over:
                if let life = open[operation]?.popLast() { lives[life].ended = record.nanoseconds }
            case .moment(let moment):
                let life: Int
                switch moment {
                case .posted:
                    // An operation has one life at a time; only a handler may post it again before its packet is handled.
                    for earlier in open[operation] ?? []
                    where operation != 0 && lives[earlier].last < .dequeued {
                        lives[earlier].ended = record.nanoseconds
                    }
                    open[operation]?.removeAll { lives[$0].ended != nil }
                    life = begin(record)
                case .handled:
                    // A handler that posted its operation again ends its own life, not the one that it began.
                    let taken = open[operation]?.first {
                        lives[$0].last == .dequeued && lives[$0].worker == record.lane
                    }
                    guard let taken else { continue }
                    open[operation]?.removeAll { $0 == taken }
                    life = taken
                case .pending:
                    // The thread that posts may be overtaken by the one that sees the completion.
                    let posted = open[operation]?.first { lives[$0].last < .pending }
                    let late = open[operation]?.first { lives[$0].moments[1] == nil }
                    guard let its = posted ?? late else { continue }
                    life = its
                case .queued, .dequeued:
                    life = open[operation]?.first { lives[$0].last < moment } ?? begin(record)
                    if moment == .dequeued { lives[life].worker = record.lane }
                }
                lives[life].moments[Int(moment.rawValue)] = record.nanoseconds
            }
        }
        separateHandling(&lives)
        return lives
    }

    /// A worker that takes several packets at once handles them one after the other: the second begins when the
    /// first ends. (One taken while another is being handled is left inside it.)
    private func separateHandling(_ lives: inout [Life]) {
        var previous: [Int: Int] = [:]  // worker's lane: the life whose handling ended last
        let dequeued = Int(Moment.dequeued.rawValue)
        let order = lives.indices.filter { lives[$0].worker != nil }.sorted {
            (lives[$0].moments[4] ?? .max, $0) < (lives[$1].moments[4] ?? .max, $1)
        }
        for life in order {
            let worker = lives[life].worker!
            let taken = lives[life].moments[dequeued]!
            lives[life].begun = taken
            if let before = previous[worker], let end = lives[before].moments[4],
                lives[before].moments[dequeued]! <= taken
            {
                lives[life].begun = max(taken, end)
            }
            previous[worker] = life
        }
        // A program that does not say when it has handled a packet has done so when it takes the next one.
        var next: [Int: Int] = [:]  // worker's lane: when it took the next packet
        for life in order.sorted(by: { lives[$0].moments[dequeued]! > lives[$1].moments[dequeued]! }) {
            let worker = lives[life].worker!
            if lives[life].moments[4] == nil { lives[life].ended = next[worker] }
            next[worker] = lives[life].moments[dequeued]
        }
    }

    /// How many operations are in a phase at each point: the times at which the number changes, and the new number.
    func counts(of phase: Phase, in lives: [Life]) -> [(time: Int, count: Int)] {
        var changes: [Int: Int] = [:]
        for life in lives {
            for (its, time) in life.phases(until: span.upperBound) where its == phase && !time.isEmpty {
                changes[time.lowerBound, default: 0] += 1
                changes[time.upperBound, default: 0] -= 1
            }
        }
        var count = 0
        return changes.sorted { $0.key < $1.key }.map { change in
            count += change.value
            return (change.key, count)
        }
    }
}
