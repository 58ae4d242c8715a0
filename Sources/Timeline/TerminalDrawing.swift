extension Recording {
    /// The recording for a terminal: a row for each operation (or, if there are many, how many are pending and
    /// queued), a lane for each thread with what it handled, time to the right, and the notes below.
    /// - Parameters:
    ///   - columns: the width, at least 40.
    ///   - coloured: whether to use ANSI colours. The drawing says the same without them.
    public func drawing(columns: Int = 100, coloured: Bool = false) -> String {
        if records.isEmpty { return "nothing was recorded\n" }
        let picture = Picture(self)
        let names = picture.rows.map(\.name) + picture.lanes.map(\.name) + picture.crowds.map(\.name)
        let gutter = min(max(8, names.map(\.count).max() ?? 0), 22) + 2
        var page = Page(
            gutter: gutter, width: max(40, columns) - gutter, picture: picture, coloured: coloured)
        page.axis()
        for row in picture.rows {
            page.row(row.name, row.lives.map { picture.lives[$0] }, until: span.upperBound)
        }
        for crowd in picture.crowds { page.crowd(crowd) }
        page.blank()
        for lane in picture.lanes {
            page.lane(
                lane.name, lane.handled.map { (picture.lives[$0.life].label, $0.time) }, posts: lane.posts,
                notes: picture.notes.filter { $0.record.lane == lane.lane }.map {
                    ($0.sign, $0.record.nanoseconds)
                })
        }
        if picture.lanesLeftOut > 0 { page.say("… and \(picture.lanesLeftOut) more threads") }
        page.blank()
        page.legend(hasHeld: hasHeld)
        for note in picture.notes {
            let time = readable(note.record.nanoseconds - picture.start)
            page.say("\(note.sign)  \(time)  \(lanes[note.record.lane].name): \(note.text)")
        }
        if picture.notesLeftOut > 0 { page.say("… and \(picture.notesLeftOut) more notes") }
        if dropped > 0 { page.say("\(dropped) records did not fit and are missing") }
        return page.text
    }
}

/// One place of a terminal's line.
private struct Cell {
    var character: Character = " "
    var phase: Phase?
    var isWritten = false  // part of a name inside a block
}

private struct Page {
    let gutter: Int
    let width: Int
    let picture: Picture
    let coloured: Bool
    var text = ""

    private static let levels: [Character] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]

    mutating func axis() {
        var texts = [Cell](repeating: Cell(), count: width)
        var line = [Cell](repeating: Cell(character: "─"), count: width)
        for (time, name) in ticks(for: picture.length, limit: max(2, width / 12)) {
            let place = picture.position(picture.start + time, width: width)
            line[place].character = "┬"
            if place + name.count > width { continue }
            for (offset, character) in name.enumerated() {
                texts[place + offset].character = character
            }
        }
        add("", texts)
        add("", line)
    }

    mutating func row(_ name: String, _ lives: [Recording.Life], until end: Int) {
        var line = [Cell](repeating: Cell(), count: width)
        for life in lives {
            // The moment of posting is short and would hide under what follows: it is drawn last, over its first cell.
            let phases = life.phases(until: end)
            for (phase, time) in phases where phase != .posted {
                for place in places(time) { line[place] = Cell(character: phase.glyph, phase: phase) }
            }
            if let waited = life.waited(until: end) {
                for place in places(waited) where line[place].phase != .handled {
                    line[place] = Cell(character: Held.glyph)
                }
            }
            guard let (phase, time) = phases.first, phase == .posted else { continue }
            for place in places(time) where line[place].phase == nil || line[place].phase == .pending {
                line[place] = Cell(character: phase.glyph, phase: phase)
            }
        }
        add(name, line)
    }

    mutating func crowd(_ crowd: Picture.Crowd) {
        var highest = [Int](repeating: 0, count: width)
        for (change, next) in zip(crowd.counts, crowd.counts.dropFirst()) {
            for place in places(change.time..<next.time) {
                highest[place] = max(highest[place], change.count)
            }
        }
        add(crowd.name, highest.map { level(Double($0) / Double(max(crowd.most, 1)), crowd.phase) })
    }

    /// A thread: its blocks with the names of what it handled where they fit, elsewhere how busy it was.
    mutating func lane(
        _ name: String, _ handled: [(label: String, time: Range<Int>)], posts: [Int],
        notes: [(Character, Int)]
    ) {
        let size = Double(picture.length) / Double(width)
        var busy = [Double](repeating: 0, count: width)
        for (_, time) in handled {
            for place in places(time) {
                let from = Double(picture.start) + Double(place) * size
                let share = min(Double(time.upperBound), from + size) - max(Double(time.lowerBound), from)
                busy[place] += max(share, 0) / size
            }
        }
        var line = busy.map { level(min($0, 1), .handled) }
        for (label, time) in handled {
            // A cell of block on either side of the name, and no note's sign in it or beside it.
            let places = places(time)
            let starts = places.dropFirst().dropLast(label.count)
            let start = starts.first { start in
                !notes.contains {
                    (start - 1...start + label.count).contains(picture.position($0.1, width: width))
                }
            }
            guard let start else { continue }
            for (offset, character) in harmless(label).enumerated() {
                line[start + offset] = Cell(character: character, phase: .handled, isWritten: true)
            }
        }
        for post in posts {
            let place = picture.position(post, width: width)
            if line[place].phase == nil { line[place] = Cell(character: Phase.posted.glyph, phase: .posted) }
        }
        for (sign, time) in notes {
            let place = picture.position(time, width: width)
            let isTaken = line[place].phase == nil && line[place].character.isLetter
            line[place] = Cell(character: isTaken ? "+" : sign)
        }
        add(name, line)
    }

    mutating func legend(hasHeld: Bool) {
        var cells: [Cell] = []
        for phase in Phase.allCases {
            cells.append(Cell(character: phase.glyph, phase: phase))
            cells += " \(phase.name)  ".map { Cell(character: $0) }
        }
        if hasHeld { cells += "\(Held.glyph) \(Held.name)".map { Cell(character: $0) } }
        text += rendered(cells) + "\n"
        if !picture.crowds.isEmpty { say("▁▄█ how many operations, how busy a thread") }
    }

    mutating func say(_ words: String) {
        text += wrapped(harmless(words), to: gutter + width, hanging: 3) + "\n"
    }

    mutating func blank() { text += "\n" }

    /// The places that a time covers, at least one.
    private func places(_ time: Range<Int>) -> Range<Int> {
        let first = picture.position(time.lowerBound, width: width)
        let last = picture.position(max(time.upperBound - 1, time.lowerBound), width: width)
        return first..<last + 1
    }

    private func level(_ share: Double, _ phase: Phase) -> Cell {
        if share <= 0 { return Cell() }
        let step = Int((share * 8).rounded(.up)) - 1
        return Cell(character: Self.levels[min(max(step, 0), 7)], phase: phase)
    }

    private mutating func add(_ name: String, _ cells: [Cell]) {
        let shown = harmless(String(name.prefix(gutter - 2)))
        let line = shown + String(repeating: " ", count: gutter - shown.count) + rendered(cells)
        text += String(line.reversed().drop { $0 == " " }.reversed()) + "\n"
    }

    private func rendered(_ cells: [Cell]) -> String {
        var line = ""
        var rest = cells[...]
        while rest.last?.character == " " { rest.removeLast() }
        while let first = rest.first {
            let run = rest.prefix { $0.phase == first.phase && $0.isWritten == first.isWritten }
            rest = rest.dropFirst(run.count)
            let characters = String(run.map(\.character))
            if coloured, let colour = first.phase?.terminalColour {
                line += first.isWritten ? "\u{1b}[30;48;5;\(colour)m" : "\u{1b}[38;5;\(colour)m"
                line += characters + "\u{1b}[0m"
            } else {
                line += characters
            }
        }
        return line
    }
}
