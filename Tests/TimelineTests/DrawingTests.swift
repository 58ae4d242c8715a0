import Testing
import Timeline

@Suite struct TimelineDrawings {
    @Test("the terminal drawing of two receives, character for character")
    func terminal() {
        let expected = """
                       0                       200 µs
                       ┬───────────────────────┬───────────────────────┬
            recv 1     ··──────────▒████████████████████████████████████
            recv 2       ··─────────────▒▒▒▒▒▒▒█████████████

            main       · ·
            worker 2                           ▅recv 2█████▆
            worker 10               ▅████a█recv 1███████████████████████

            · posted  ─ pending  ▒ queued  █ handled
            a  150.0 µs  worker 10: blocked

            """
        #expect(sample().drawing(columns: 60) == expected)
    }

    @Test("colours change no character, and notes cannot bring control characters in")
    func colours() {
        var recording = sample()
        recording.records.append(record(500, 1, 0, .note("red \u{1b}[31m bell \u{7}")))
        let plain = recording.drawing(columns: 80)
        #expect(!plain.contains("\u{1b}") && !plain.contains("\u{7}"))
        let coloured = recording.drawing(columns: 80, coloured: true)
        #expect(coloured.contains("\u{1b}[38;5;214m▒"))
        #expect(coloured.replacing(/\u{1b}\[[0-9;]*m/, with: "") == plain)
    }

    @Test(
        "a drawing keeps to its width, with few operations and with hundreds", arguments: [40, 72, 100, 200])
    func width(columns: Int) {
        for recording in [sample(), crowd(500)] {
            let lines = recording.drawing(columns: columns).split(separator: "\n")
            #expect(lines.allSatisfy { $0.count <= columns }, "\(lines)")
        }
    }

    @Test("hundreds of operations become numbers over time")
    func crowded() {
        let lines = crowd(500).drawing(columns: 100).split(separator: "\n").map(String.init)
        #expect(lines.count < 12)
        #expect(lines.contains { $0.hasPrefix("pending ≤100 ") && $0.contains("█") })
        #expect(lines.contains { $0.hasPrefix("queued ≤50 ") && $0.contains("█") })
        #expect(lines.contains { $0.hasPrefix("worker ") && $0.contains("█") })
    }

    @Test("nothing recorded, one record, and dropped records are said in words")
    func edges() {
        let empty = Recording(records: [], lanes: [])
        #expect(empty.drawing() == "nothing was recorded\n")
        #expect(empty.svg(title: "t", description: "d").contains("</svg>"))
        let one = Recording(
            records: [record(5, 0, 1, .moment(.posted))], lanes: [.init(name: "main", thread: 1)], dropped: 3)
        #expect(one.drawing().contains("3 records did not fit"))
        #expect(one.svg(title: "t", description: "d").contains("3 records did not fit"))
        #expect(one.trace(process: "p").contains("\"dropped\":\"3\""))
    }
}
