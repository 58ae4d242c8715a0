extension Recording {
    /// The recording as an SVG picture, readable on a light page and on a dark one.
    /// - Parameters:
    ///   - title: the heading, in a few words.
    ///   - description: the picture's point in a sentence, for those who cannot see it.
    public func svg(title: String, description: String) -> String {
        var canvas = Canvas(picture: Picture(self), names: lanes.map(\.name))
        canvas.heading(title, hasHeld: hasHeld)
        canvas.operations(until: span.upperBound)
        canvas.threads()
        canvas.remarks(dropped: dropped)
        return canvas.finished(title: title, description: description)
    }
}

private struct Canvas {
    let picture: Picture
    let names: [String]
    private static let width = 960
    private static let right = 24
    private let gutter: Int
    private var plot: Int { Self.width - gutter - Self.right }
    private var y = 0
    private var top = 0
    private var body = ""

    init(picture: Picture, names: [String]) {
        self.picture = picture
        self.names = names
        let shown = picture.rows.map(\.name) + picture.lanes.map(\.name) + picture.crowds.map(\.name)
        gutter = min(max((shown.map(\.count).max() ?? 0) * 8 + 40, 110), 200)
    }

    mutating func heading(_ title: String, hasHeld: Bool) {
        text(24, 36, title, "title")
        var x = gutter
        for phase in Phase.allCases {
            add("<rect class=\"\(phase.name)\" x=\"\(x)\" y=\"54\" width=\"14\" height=\"10\" rx=\"2\"/>")
            text(x + 20, 63, phase.name, "small")
            x += 92
        }
        if hasHeld {
            add("<rect class=\"held\" x=\"\(x)\" y=\"54\" width=\"14\" height=\"10\" rx=\"2\"/>")
            text(x + 20, 63, Held.name, "small")
        }
        // The axis; its lines go down as far as the drawing gets, see `finished`.
        for (time, name) in ticks(for: picture.length, limit: 8) {
            let x = place(picture.start + time)
            if x < Double(Self.width - 50) { text(x, 92, name, "small", anchor: "middle") }
        }
        top = 98
        y = 108
    }

    mutating func operations(until end: Int) {
        for row in picture.rows {
            name(row.name, y + 13)
            for (position, index) in row.lives.enumerated() {
                let next = position + 1 < row.lives.count ? picture.lives[row.lives[position + 1]] : nil
                operation(picture.lives[index], until: end, before: next)
            }
            y += 20
        }
        for crowd in picture.crowds {
            name(crowd.name, y + 34)
            area(crowd.counts, crowd.most, crowd.phase, until: end)
            y += 64
        }
        y += 10
    }

    /// One life of an operation. A short phase is drawn some pixels wide, and what follows it in this life so much later,
    /// if the row's next life leaves room for that: otherwise a picture of milliseconds shows no events at all.
    private mutating func operation(_ life: Recording.Life, until end: Int, before next: Recording.Life?) {
        let phases = life.phases(until: end)
        guard let first = phases.first, let last = phases.last else { return }
        let limit = next?.phases(until: end).first.map { place($0.time.lowerBound) } ?? Double(Self.width)
        let isRoomy = max(place(last.time.upperBound), place(first.time.lowerBound) + 12) < limit
        var left = 0.0
        for (phase, time) in phases {
            let shift = isRoomy ? max(0, left - place(time.lowerBound)) : 0
            let least = isRoomy && phase != .pending && !time.isEmpty ? 4.0 : phase == .posted ? 3 : 1
            left = block(time, y + 3, 13, phase.name, tip: life.label, shift: shift, least: least)
        }
        if let time = life.waited(until: end) { block(time, y + 3, 13, "held", tip: life.label) }
    }

    /// The number of operations over time, as an area.
    private mutating func area(
        _ counts: [(time: Int, count: Int)], _ most: Int, _ phase: Phase, until end: Int
    ) {
        let height = 48.0
        let base = Double(y) + 54
        var path = "M\(number(place(counts.first?.time ?? end))) \(number(base))"
        var drawn = -1.0
        var highest = 0
        // Of several changes within a third of a pixel only the highest is drawn: the file stays small.
        for (time, count) in counts {
            let x = place(time)
            highest = max(highest, count)
            if x - drawn < 0.34 && count != 0 { continue }
            let top = base - height * Double(count == 0 ? 0 : highest) / Double(max(most, 1))
            path += "H\(number(x))V\(number(top))"
            drawn = x
            highest = 0
        }
        add("<path class=\"\(phase.name)\" d=\"\(path)V\(number(base))Z\"/>")
    }

    mutating func threads() {
        for lane in picture.lanes {
            add("<rect class=\"lane\" x=\"\(gutter)\" y=\"\(y)\" width=\"\(plot)\" height=\"26\" rx=\"4\"/>")
            name(lane.name, y + 17)
            var posts = ""
            var drawn = -1.0
            for x in lane.posts.map(place) where x - drawn >= 1 {
                posts += "M\(number(x)) \(y + 20)v6"
                drawn = x
            }
            if !posts.isEmpty { add("<path class=\"post\" d=\"\(posts)\"/>") }
            // Blocks that no eye could tell apart become one.
            var merged: [(life: Int?, time: Range<Int>)] = []
            let close = picture.length / plot / 3
            for (life, time) in lane.handled {
                if let last = merged.last, time.lowerBound - last.time.upperBound <= close,
                    max(time.upperBound, last.time.upperBound) - last.time.lowerBound <= close * 3
                {
                    let end = max(time.upperBound, last.time.upperBound)
                    merged[merged.count - 1] = (nil, last.time.lowerBound..<end)
                } else {
                    merged.append((life, time))
                }
            }
            for (life, time) in merged {
                let label = life.map { picture.lives[$0].label }
                block(time, y + 4, 18, Phase.handled.name, tip: label ?? "several")
                let room = Int(place(time.upperBound) - place(time.lowerBound))
                guard let label, label.count * 8 + 12 < room else { continue }
                text(place(time.lowerBound) + 6, y + 17, label, "inside", anchor: "start")
            }
            for note in picture.notes where note.record.lane == lane.lane {
                let x = number(place(note.record.nanoseconds))
                add("<circle class=\"note\" cx=\"\(x)\" cy=\"\(y + 13)\" r=\"8\"/>")
                text(place(note.record.nanoseconds), y + 17, String(note.sign), "sign", anchor: "middle")
            }
            y += 32
        }
        if picture.lanesLeftOut > 0 { line("… and \(picture.lanesLeftOut) more threads") }
        y += 8
    }

    mutating func remarks(dropped: Int) {
        for note in picture.notes {
            let time = readable(note.record.nanoseconds - picture.start)
            line("\(note.sign)   \(time)   \(names[note.record.lane]): \(note.text)")
        }
        if picture.notesLeftOut > 0 { line("… and \(picture.notesLeftOut) more notes") }
        if dropped > 0 { line("\(dropped) records did not fit and are missing") }
    }

    func finished(title: String, description: String) -> String {
        var grid = ""
        let bottom = 108 + picture.rows.count * 20 + picture.crowds.count * 64 + 10 + picture.lanes.count * 32
        for (time, _) in ticks(for: picture.length, limit: 8) {
            grid +=
                "<path class=\"grid\" d=\"M\(number(place(picture.start + time))) \(top)V\(bottom - 4)\"/>\n"
        }
        let phases = Phase.allCases.map { ".\($0.name){fill:\($0.colour)}" }.joined()
        let box = "width=\"\(Self.width)\" height=\"\(y + 12)\""
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(y + 12)" \(box) role="img" \
            aria-labelledby="title description">
            <title id="title">\(escapedForXML(title))</title>
            <desc id="description">\(escapedForXML(description))</desc>
            <style>
            text{font-family:ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-size:13px;fill:#24292f}
            .title{font-size:18px;font-weight:600}.small{font-size:12px;fill:#57606a}
            .inside,.sign{font-size:12px;fill:#10241c}.sign{font-weight:600}
            .page{fill:#ffffff}.lane{fill:#f0f2f5}.grid{stroke:#d8dee4;fill:none}
            .note{fill:#ffffff;stroke:#57606a;stroke-width:1.5}.post{stroke:\(Phase.posted.colour);stroke-width:2}
            \(phases).held{fill:\(Held.colour)}
            @media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9da7b3}.inside,.sign{fill:#10241c}
            .page{fill:#0d1117}.lane{fill:#1b222c}.grid{stroke:#30363d}.note{fill:#e6edf3;stroke:#9da7b3}}
            </style>
            <rect class="page" \(box) rx="8"/>
            \(grid)\(body)</svg>

            """
    }

    /// Returns where the block ends.
    @discardableResult
    private mutating func block(
        _ time: Range<Int>, _ y: Int, _ height: Int, _ style: String, tip: String, shift: Double = 0,
        least: Double = 1
    ) -> Double {
        let x = place(time.lowerBound) + shift
        let width = max(place(time.upperBound) - x, least)
        add(
            "<rect class=\"\(style)\" x=\"\(number(x))\" y=\"\(y)\" width=\"\(number(width))\" "
                + "height=\"\(height)\"><title>\(escapedForXML(tip)): \(style == "held" ? Held.name : style), \(readable(time.count))</title></rect>"
        )
        return x + width
    }

    private mutating func name(_ words: String, _ y: Int) {
        text(Double(gutter - 12), y, String(words.prefix(24)), "name", anchor: "end")
    }

    private mutating func line(_ words: String) {
        y += 20
        text(gutter, y, words, "small")
    }

    private mutating func text(_ x: Int, _ y: Int, _ words: String, _ style: String) {
        text(Double(x), y, words, style, anchor: "start")
    }

    private mutating func text(_ x: Double, _ y: Int, _ words: String, _ style: String, anchor: String) {
        let words = escapedForXML(words)
        add(
            "<text class=\"\(style)\" x=\"\(number(x))\" y=\"\(y)\" text-anchor=\"\(anchor)\">\(words)</text>"
        )
    }

    private mutating func add(_ element: String) { body += element + "\n" }

    private func place(_ time: Int) -> Double {
        Double(gutter) + Double(time - picture.start) / Double(picture.length) * Double(plot)
    }

    private func number(_ value: Double) -> String { fixed(value, 2) }
}
