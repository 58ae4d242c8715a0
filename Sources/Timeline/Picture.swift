/// What the drawings have in common: the rows, the lanes and the notes, in the order in which they are shown.
struct Picture {
    /// More operations than this are drawn as numbers over time instead of a row for each.
    static let maximumRows = 24
    /// More threads than this are left out, and the drawing says so.
    static let maximumLanes = 32
    /// More notes than this are left out, and the drawing says so.
    static let maximumNotes = 20

    let lives: [Recording.Life]
    let start: Int
    let length: Int
    /// A row holds all lives of one operation under one name. Empty if there are too many.
    private(set) var rows: [(name: String, lives: [Int])] = []
    /// The threads that did something.
    private(set) var lanes:
        [(name: String, lane: Int, handled: [(life: Int, time: Range<Int>)], posts: [Int])] = []
    private(set) var lanesLeftOut = 0
    private(set) var notes: [(sign: Character, record: Recording.Record, text: String)] = []
    private(set) var notesLeftOut = 0
    /// How many operations are pending and queued; for recordings with too many operations for rows.
    private(set) var crowds: [Crowd] = []

    /// How many operations are in a phase, over time.
    struct Crowd {
        let phase: Phase
        let counts: [(time: Int, count: Int)]
        var most: Int { counts.map(\.count).max() ?? 0 }
        var name: String { "\(phase.name) ≤\(most)" }
    }

    init(_ recording: Recording) {
        lives = recording.lives
        start = recording.span.lowerBound
        length = recording.span.count

        let end = recording.span.upperBound
        var rowOf: [String: Int] = [:]
        for (index, life) in lives.enumerated() {
            let key = "\(life.operation) \(life.label)"
            let row = rowOf[key, default: rows.count]
            rowOf[key] = row
            if row == rows.count {
                // Two connections may each have a `read 3`: they are two rows, with two names.
                let others = rows.count { $0.name == life.label || $0.name.hasPrefix(life.label + " (") }
                rows.append((others == 0 ? life.label : "\(life.label) (\(others + 1))", []))
            }
            rows[row].lives.append(index)
        }
        // Rows that are called `sender: …` stand together, and so do those that are called `receiver: …`.
        let groups = rows.map { row in row.name.firstIndex(of: ":").map { String(row.name[..<$0]) } ?? "" }
        let order = groups.enumerated().map { (groups.firstIndex(of: $1)!, $0) }.sorted { $0 < $1 }
        rows = order.map { rows[$0.1] }
        if rows.count > Self.maximumRows {
            rows = []
            for phase in [Phase.pending, .queued] {
                crowds.append(Crowd(phase: phase, counts: recording.counts(of: phase, in: lives)))
            }
        }

        for lane in recording.laneOrder {
            var handled: [(life: Int, time: Range<Int>)] = []
            for (index, life) in lives.enumerated() where life.worker == lane {
                guard let phase = life.phases(until: end).last, phase.phase == .handled else { continue }
                handled.append((index, phase.time))
            }
            handled.sort { $0.time.lowerBound < $1.time.lowerBound }
            let posts = lives.filter { $0.poster == lane }.compactMap { $0.moments[0] }
            let notes = recording.notes.contains { $0.record.lane == lane }
            if handled.isEmpty && posts.isEmpty && !notes { continue }
            lanes.append((recording.lanes[lane].name, lane, handled, posts))
        }
        lanesLeftOut = max(0, lanes.count - Self.maximumLanes)
        lanes.removeLast(lanesLeftOut)

        let signs = "abcdefghijklmnopqrstuvwxyz"
        let all = recording.notes
        notes = zip(signs, all.prefix(Self.maximumNotes)).map { ($0, $1.record, $1.text) }
        notesLeftOut = all.count - notes.count
    }

    /// Where a time is, on a line of `width` parts.
    func position(_ time: Int, width: Int) -> Int {
        min(Int(Double(time - start) / Double(length) * Double(width)), width - 1)
    }
}
