import Timeline

/// A record at a time in microseconds.
func record(_ microseconds: Int, _ lane: Int, _ operation: UInt, _ what: Recording.What) -> Recording.Record {
    Recording.Record(nanoseconds: microseconds * 1_000, lane: lane, operation: operation, what: what)
}

/// Two receives posted by one thread, handled by two workers; the first handler writes two notes.
func sample() -> Recording {
    let records = [
        record(100, 0, 7, .label("recv 1")),
        record(100, 0, 7, .moment(.posted)),
        record(110, 0, 7, .moment(.pending)),
        record(120, 0, 8, .label("recv 2")),
        record(120, 0, 8, .moment(.posted)),
        record(130, 0, 8, .moment(.pending)),
        record(200, 0, 7, .moment(.queued)),
        record(210, 1, 7, .moment(.dequeued)),
        record(240, 0, 8, .moment(.queued)),
        record(250, 1, 7, .note("blocked")),
        record(300, 2, 8, .moment(.dequeued)),
        record(400, 2, 8, .moment(.handled)),
        record(500, 1, 7, .moment(.handled)),
    ]
    let lanes = ["main", "worker 10", "worker 2"].enumerated().map {
        Recording.Lane(name: $1, thread: $0 + 1)
    }
    return Recording(records: records, lanes: lanes)
}

/// Many operations at once: more than there are rows for.
func crowd(_ count: Int) -> Recording {
    var records: [Recording.Record] = []
    for index in 0..<count {
        let operation = UInt(1_000 + index)
        records.append(record(index, 0, operation, .moment(.posted)))
        records.append(record(index, 0, operation, .moment(.pending)))
        records.append(record(index + 100, 0, operation, .moment(.queued)))
        records.append(record(index + 150, 1, operation, .moment(.dequeued)))
        records.append(record(index + 151, 1, operation, .moment(.handled)))
    }
    records.sort { $0.nanoseconds < $1.nanoseconds }
    return Recording(
        records: records, lanes: [.init(name: "main", thread: 1), .init(name: "worker", thread: 2)])
}
