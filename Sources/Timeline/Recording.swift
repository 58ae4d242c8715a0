/// What a ``Recorder`` saw between start and stop, oldest record first. It can be drawn in three ways:
/// ``drawing(columns:coloured:)``, ``svg(title:description:)`` and ``trace(process:)``.
public struct Recording: Sendable {
    /// A thread that has records in this recording.
    public struct Lane: Sendable, Equatable {
        /// The name given by ``Recorder/nameThread(_:)``, or else `main` or `thread` and its number.
        public var name: String
        /// The operating system's number of the thread.
        public var thread: Int

        /// Makes a lane.
        public init(name: String, thread: Int) {
            self.name = name
            self.thread = thread
        }
    }

    /// What a record says.
    public enum What: Sendable, Equatable {
        /// The operation reached this moment.
        case moment(Moment)
        /// The post has told what has come of the operation, and its life ends with it.
        case over
        /// What it has brought is kept until its turn comes: a worker is done with it, and nothing has become of it yet.
        case held
        /// Its turn has come.
        case turn
        /// A remark in free words.
        case note(String)
        /// What the operation does, such as `receive`: its name as long as it has no label.
        case kind(String)
        /// From now on the operation is to be called this.
        case label(String)
    }

    /// One entry of a recording.
    public struct Record: Sendable, Equatable {
        /// When, in nanoseconds since the recording's start.
        public var nanoseconds: Int
        /// Which thread: an index into ``Recording/lanes``.
        public var lane: Int
        /// Which operation; 0 stands for none.
        public var operation: UInt
        /// What happened.
        public var what: What

        /// When, since the recording's start.
        public var time: Duration { .nanoseconds(nanoseconds) }

        /// Makes a record.
        public init(nanoseconds: Int, lane: Int, operation: UInt, what: What) {
            self.nanoseconds = nanoseconds
            self.lane = lane
            self.operation = operation
            self.what = what
        }
    }

    /// The records, oldest first.
    public var records: [Record]
    /// The threads, in the order of their first records.
    public var lanes: [Lane]
    /// How many records did not fit into the capacity and are missing.
    public var dropped: Int

    /// Makes a recording by hand, for a picture of what should happen. `records` must be in the order of their times.
    public init(records: [Record], lanes: [Lane], dropped: Int = 0) {
        self.records = records
        self.lanes = lanes
        self.dropped = dropped
    }

    /// The notes, oldest first.
    public var notes: [(record: Record, text: String)] {
        records.compactMap { record in
            if case .note(let text) = record.what { (record, text) } else { nil }
        }
    }

    /// The first and the last moment that a drawing shows, in nanoseconds; never empty.
    var span: Range<Int> {
        let first = records.first?.nanoseconds ?? 0
        return first..<max(records.last?.nanoseconds ?? 0, first + 1)
    }

    /// The lanes' indices in the order of the drawings: `main`, then by name, numbers by their value.
    var laneOrder: [Int] {
        lanes.indices.sorted { one, other in
            let names = (lanes[one].name, lanes[other].name)
            if (names.0 == "main") != (names.1 == "main") { return names.0 == "main" }
            return (sortingKey(names.0), one) < (sortingKey(names.1), other)
        }
    }
}
