import Testing
import Timeline

@Suite struct TimelineLives {
    @Test("a life has its label, its poster, its worker and its moments")
    func simple() {
        let lives = sample().lives
        #expect(lives.map(\.label) == ["recv 1", "recv 2"])
        #expect(lives.map(\.poster) == [0, 0])
        #expect(lives.map(\.worker) == [1, 2])
        #expect(lives[0][.posted] == .microseconds(100))
        #expect(lives[0][.handled] == .microseconds(500))
    }

    @Test("a handler that posts its operation again ends its own life, not the new one")
    func postedAgain() {
        let lives = Recording(
            records: [
                record(0, 0, 7, .label("recv 1")),
                record(0, 0, 7, .moment(.posted)),
                record(10, 0, 7, .moment(.queued)),
                record(20, 1, 7, .moment(.dequeued)),
                record(25, 1, 7, .label("recv 2")),
                record(30, 1, 7, .moment(.posted)),
                record(40, 0, 7, .moment(.queued)),
                record(50, 2, 7, .moment(.dequeued)),
                record(60, 1, 7, .moment(.handled)),
                record(70, 2, 7, .moment(.handled)),
            ], lanes: (0..<3).map { .init(name: "lane \($0)", thread: $0) }
        ).lives
        #expect(lives.map(\.label) == ["recv 1", "recv 2"])
        #expect(lives.map(\.worker) == [1, 2])
        #expect(lives.map { $0[.handled] } == [.microseconds(60), .microseconds(70)])
    }

    @Test("an operation given up and posted again does not take the new life's moments")
    func abandoned() {
        let lives = Recording(
            records: [
                record(0, 0, 7, .moment(.posted)), record(1, 0, 7, .moment(.pending)),
                record(2, 0, 7, .moment(.posted)), record(3, 0, 7, .moment(.pending)),
                record(4, 0, 7, .moment(.queued)),
            ], lanes: [.init(name: "main", thread: 1)]
        ).lives
        #expect(lives.map { $0[.queued] } == [nil, .microseconds(4)])
    }

    @Test("a post that is refused is not pending for ever; the handler that posted has its own life")
    func refused() {
        let recording = Recording(
            records: [
                record(0, 0, 7, .moment(.posted)), record(10, 0, 7, .moment(.queued)),
                record(20, 0, 7, .moment(.dequeued)), record(30, 0, 7, .moment(.posted)),
                record(30, 0, 7, .moment(.pending)), record(40, 0, 7, .over),
                record(60, 0, 7, .moment(.handled)), record(100, 0, 0, .note("end")),
            ], lanes: [.init(name: "main", thread: 1)])
        #expect(recording.lives.map { $0[.handled] } == [.microseconds(60), nil])
        // One column for each microsecond: the second life is pending for ten, within the handling of the first.
        let line = recording.drawing(columns: 113).split(separator: "\n")[2]
        #expect(line.filter { $0 == "·" || $0 == "─" }.count == 10 + 10, "\(line)")
    }

    @Test(
        "what nobody wrote down the end of is over when its worker goes on, or its operation is posted again")
    func unsaid() throws {
        let recording = Recording(
            records: [
                record(0, 0, 1, .moment(.posted)), record(10, 0, 1, .moment(.queued)),
                record(20, 0, 1, .moment(.posted)), record(30, 0, 1, .moment(.queued)),
                record(40, 0, 1, .moment(.dequeued)), record(45, 0, 2, .moment(.queued)),
                record(60, 0, 2, .moment(.dequeued)), record(100, 0, 0, .note("end")),
            ], lanes: [.init(name: "main", thread: 1)])
        // One column for each microsecond.
        let lines = recording.drawing(columns: 113).split(separator: "\n").map { $0.dropFirst(13) }
        #expect(lines[2].filter { $0 == "▒" }.count == 20)
        #expect(lines[2].filter { $0 == "█" }.count == 20)
        #expect(lines[3].filter { $0 == "█" }.count == 40)
    }

    @Test("without a label an operation is called by its kind and a number, and two of one name are two rows")
    func names() {
        let recording = Recording(
            records: [
                record(0, 0, 1, .kind("receive")), record(0, 0, 1, .moment(.posted)),
                record(1, 0, 2, .kind("accept")), record(1, 0, 2, .moment(.posted)),
                record(2, 0, 3, .kind("receive")), record(2, 0, 3, .moment(.posted)),
                record(3, 0, 4, .label("read 3")), record(3, 0, 4, .moment(.posted)),
                record(4, 0, 5, .label("read 3")), record(4, 0, 5, .moment(.posted)),
                // The same operation in its next life, and one of unknown kind.
                record(5, 0, 1, .moment(.queued)), record(6, 0, 1, .moment(.dequeued)),
                record(7, 0, 1, .moment(.handled)), record(8, 0, 1, .kind("send")),
                record(8, 0, 1, .moment(.posted)), record(9, 0, 6, .moment(.posted)),
            ], lanes: [.init(name: "main", thread: 1)])
        #expect(
            recording.lives.map(\.label) == [
                "receive 1", "accept 1", "receive 2", "read 3", "read 3", "receive 1", "operation 1",
            ])
        let rows = recording.drawing(columns: 80).split(separator: "\n").dropFirst(2).prefix(6).map {
            $0.prefix(11).split(separator: " ").joined(separator: " ")
        }
        #expect(rows == ["receive 1", "accept 1", "receive 2", "read 3", "read 3 (2)", "operation 1"])
    }

    @Test("packets without an operation are told apart in their order")
    func withoutOperation() {
        let lives = Recording(
            records: [
                record(0, 0, 0, .moment(.queued)), record(1, 0, 0, .moment(.queued)),
                record(2, 1, 0, .moment(.dequeued)), record(3, 2, 0, .moment(.dequeued)),
                record(4, 2, 0, .moment(.handled)), record(5, 1, 0, .moment(.handled)),
            ], lanes: (0..<3).map { .init(name: "lane \($0)", thread: $0) }
        ).lives
        #expect(lives.map(\.label) == ["packet 1", "packet 2"])
        #expect(lives.map(\.worker) == [1, 2])
        #expect(lives.map { $0[.handled] } == [.microseconds(5), .microseconds(4)])
    }

    @Test("a pending that is written down after its completion belongs to the same life")
    func overtaken() {
        let lives = Recording(
            records: [
                record(0, 0, 7, .moment(.posted)), record(1, 1, 7, .moment(.queued)),
                record(2, 0, 7, .moment(.pending)), record(3, 1, 7, .moment(.dequeued)),
            ], lanes: (0..<2).map { .init(name: "lane \($0)", thread: $0) }
        ).lives
        #expect(lives.count == 1)
        #expect(lives.first?[.pending] == .microseconds(2))
        #expect(lives.first?[.dequeued] == .microseconds(3))
    }

    @Test("what waits for its turn is drawn until the turn comes, in a colour of its own")
    func held() throws {
        var recording = sample()
        #expect(!recording.drawing(columns: 60).contains("░"))
        let handled = recording.records.firstIndex { $0.nanoseconds == 400_000 }!
        recording.records.insert(record(390, 2, 8, .held), at: handled)
        recording.records.append(record(600, 1, 8, .turn))
        let drawing = recording.drawing(columns: 60)
        let row = try #require(drawing.split(separator: "\n").first { $0.hasPrefix("recv 2") })
        #expect(row.contains("█░░") && row.hasSuffix("░"))
        #expect(drawing.contains("░ waits for its turn"))
        let picture = recording.svg(title: "t", description: "d")
        #expect(picture.contains("<rect class=\"held\""))
        #expect(picture.contains("recv 2: waits for its turn, 200.0 µs"))
        // A turn without a wait says nothing.
        recording.records.append(record(700, 1, 7, .turn))
        #expect(!recording.svg(title: "t", description: "d").contains("recv 1: waits"))
    }

    @Test("rows of one group stand together")
    func groups() throws {
        let names = ["b: one", "a: one", "b: two"]
        let records = names.indices.flatMap { number in
            let operation = UInt(number + 1)
            return [
                record(number, 0, operation, .label(names[number])),
                record(number, 0, operation, .moment(.posted)),
            ]
        }
        let recording = Recording(records: records, lanes: [Recording.Lane(name: "main", thread: 1)])
        let rows = recording.drawing(columns: 60).split(separator: "\n").filter { $0.contains(": ") }
        #expect(rows.map { $0.prefix(6) } == ["b: one", "b: two", "a: one"])
    }
}
