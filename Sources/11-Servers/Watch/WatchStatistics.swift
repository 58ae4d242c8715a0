/// What the page shows of a server at one moment: a value of its own, so that it knows nothing of the server.
public struct WatchStatistics: Sendable, Equatable {
    /// What is being watched, such as `11-server-and-client on 127.0.0.1:4000`.
    public var name: String
    /// Milliseconds on the monotonic clock: rates are differences of totals by differences of this.
    public var milliseconds: UInt64 = 0
    /// Totals since the start.
    public var messages = 0, bytes = 0
    /// Connections now, and the most that there were.
    public var connections = 0, peak = 0
    /// Some of them: the first ``rowLimit`` are shown.
    public var rows: [Row] = []
    /// What the workers are doing: a name for each state, and how many.
    public var workers: [Figure] = []
    /// Everything else, in groups.
    public var groups: [Group] = []
    /// The last texts that clients have sent.
    public var lines: [String] = []

    /// Connections that are shown at most: so what is sent twice a second has a bound.
    public static let rowLimit = 200
    /// Texts that are shown at most.
    public static let lineLimit = 20

    /// Nothing yet.
    public init(name: String) { self.name = name }

    /// A connection.
    public struct Row: Sendable, Equatable {
        /// Its name, its address, and what it is doing.
        public var id: String, address: String, state: String
        /// Both ways together.
        public var messages: Int, bytes: Int
        /// The file under way, how much of it, and of how many bytes; nil when there is none.
        public var file: File?

        /// A connection.
        public init(id: String, address: String, state: String, messages: Int, bytes: Int, file: File? = nil)
        {
            (self.id, self.address, self.state) = (id, address, state)
            (self.messages, self.bytes, self.file) = (messages, bytes, file)
        }
    }

    /// A file under way.
    public struct File: Sendable, Equatable {
        /// Its name, bytes so far, bytes of all.
        public var name: String, done: Int, size: Int

        /// A file.
        public init(name: String, done: Int, size: Int) {
            (self.name, self.done, self.size) = (name, done, size)
        }
    }

    /// A number with its name.
    public struct Figure: Sendable, Equatable {
        /// What it counts.
        public var name: String, value: Int

        /// A number with its name.
        public init(_ name: String, _ value: Int) { (self.name, self.value) = (name, value) }
    }

    /// Figures that belong together.
    public struct Group: Sendable, Equatable {
        /// Their heading.
        public var name: String, figures: [Figure]

        /// Figures that belong together.
        public init(_ name: String, _ figures: [Figure]) { (self.name, self.figures) = (name, figures) }
    }

    // MARK: JSON

    /// As JSON, on one line.
    public var json: String {
        func object(_ figures: [Figure]) -> String {
            "{" + figures.map { "\(quoted($0.name)):\($0.value)" }.joined(separator: ",") + "}"
        }
        func list<Element>(_ elements: some Sequence<Element>, _ text: (Element) -> String) -> String {
            "[" + elements.map(text).joined(separator: ",") + "]"
        }
        let rows = list(rows.prefix(WatchStatistics.rowLimit)) { row in
            let file = row.file.map {
                ",\"file\":{\"name\":\(quoted($0.name)),\"done\":\($0.done),\"size\":\($0.size)}"
            }
            return
                "{\"id\":\(quoted(row.id)),\"address\":\(quoted(row.address)),\"state\":\(quoted(row.state)),"
                + "\"messages\":\(row.messages),\"bytes\":\(row.bytes)\(file ?? "")}"
        }
        let groups = list(groups) { "{\"name\":\(quoted($0.name)),\"figures\":\(object($0.figures))}" }
        return
            "{\"name\":\(quoted(name)),\"milliseconds\":\(milliseconds),\"messages\":\(messages),\"bytes\":\(bytes),"
            + "\"connections\":\(connections),\"peak\":\(peak),\"rows\":\(rows),\"workers\":\(object(workers)),"
            + "\"groups\":\(groups),\"lines\":\(list(lines.suffix(WatchStatistics.lineLimit), quoted))}"
    }
}

/// A text as JSON has it. What could end it, a line or a tag becomes an escape: whoever sent it, it is shown and not obeyed.
func quoted(_ text: String) -> String {
    var quoted = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"", "\\": quoted += "\\\(scalar)"
        case "<", ">", "&", "\u{2028}", "\u{2029}", "\u{0}"..<" ", "\u{7f}"..."\u{9f}":
            let digits = String(scalar.value, radix: 16)
            quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: quoted.unicodeScalars.append(scalar)
        }
    }
    return quoted + "\""
}
