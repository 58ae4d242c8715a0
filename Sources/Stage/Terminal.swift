import CKernel
import Glibc
import Kernel
import Synchronization
import Timeline

/// What a program prints: headings, tables, bars, timelines, and claims that it remembers.
///
/// Usable from any thread; each call's lines stay together. A server's terminal never makes a thread wait for its
/// reader: what is not read is dropped and counted, see ``init(_:)``.
public final class Terminal: @unchecked Sendable {
    /// Without colours, since the output is no terminal or a simple one, `NO_COLOR` is set, or `--plain` was given.
    public let plain: Bool
    /// The width, in characters, for what is drawn.
    public let columns: Int
    /// The width at which lines are wrapped; `nil` where the output is no terminal: a file or another program gets its
    /// lines whole. The variable `COLUMNS` sets it there, too.
    public let width: Int?

    private let name: String
    private let write: @Sendable (String) -> Void
    private let canBeWritten: @Sendable () -> Bool
    private let queue: OutputQueue?
    private let lock = Lock()
    private var failures = 0  // under the lock
    private let failure: Failure

    /// The standard output of a program with these options. With `--serve` it never makes a thread wait: lines wait in
    /// a queue, and when that is full they are left out, with their number in their place.
    public convenience init(_ options: Options) {
        self.init(plain: options.plain, program: options.usage.name, isQueued: options.serve != nil)
    }

    /// The standard output.
    /// - Parameters:
    ///   - plain: `true` for no colours even where they could be shown.
    ///   - program: whose name stands before a complaint.
    ///   - isQueued: whether lines that are not read are dropped rather than waited for.
    public init(plain: Bool = false, program: String = "output", isQueued: Bool = false) {
        let isTerminal = isatty(STDOUT_FILENO) != 0
        self.plain =
            plain || !Terminal.showsColours(isTerminal: isTerminal) { getenv($0).map { String(cString: $0) } }
        var size: [Int32] = [0, 0]  // the system's four 16-bit numbers: rows, columns, and the same in pixels
        let asked = size.withUnsafeMutableBufferPointer {
            ck_ioctl_int(STDOUT_FILENO, UInt(TIOCGWINSZ), $0.baseAddress)
        }
        var width = asked == 0 ? Int(UInt32(bitPattern: size[0]) >> 16) : 0
        if width == 0, let wanted = getenv("COLUMNS") { width = Int(String(cString: wanted)) ?? 0 }
        self.width = width <= 0 ? nil : min(max(width, 40), 160)
        columns = self.width ?? 100
        name = program
        let failure = Failure()
        let write: @Sendable (String) -> Void = { failure.note(writeAll(STDOUT_FILENO, $0)) }
        self.failure = failure
        canBeWritten = { isWritable(STDOUT_FILENO, until: .now) }
        let queue = isQueued ? OutputQueue(write: write) : nil
        self.queue = queue
        if let queue {
            self.write = { queue.put($0) }
        } else {
            self.write = write
        }
    }

    /// An output of one's own, for tests.
    public init(plain: Bool, columns: Int, write: @escaping @Sendable (String) -> Void) {
        self.plain = plain
        self.columns = columns
        self.write = write
        canBeWritten = { true }
        (width, name, queue, failure) = (columns, "output", nil, Failure())
    }

    /// Whether an output shows colours, and understands what moves its cursor.
    static func showsColours(isTerminal: Bool, _ variable: (String) -> String?) -> Bool {
        isTerminal && (variable("NO_COLOR") ?? "").isEmpty && variable("TERM") != "dumb"
    }

    /// 0 as long as all claims held and the output was taken, else 1. A reader that went away is no failure: what is
    /// claimed is in the exit status, too.
    public var exitStatus: Int32 { lock.locked { failures == 0 && failure.code == 0 ? 0 : 1 } }

    /// Ends the program with ``exitStatus``. What could not be printed is said on the standard error output.
    public func finish() -> Never {
        let missing = queue?.flush(within: .seconds(1)) ?? 0
        if missing > 0 { complain("\(name): \(counted(missing, "line")) not shown: the output is not read") }
        if failure.code != 0 {
            complain("\(name): the output is not complete: \(SystemError.text(failure.code))")
        }
        exit(exitStatus)
    }

    /// Prints a text as it is.
    public func print(_ text: String) { put(text) }

    /// Prints a line.
    public func say(_ line: String = "") { put(fitting(line) + "\n") }

    /// Prints a paragraph, wrapped at words, also where the output is no terminal.
    public func explain(_ words: String) { put(wrapped(words, to: columns) + "\n") }

    /// Prints a heading, with a blank line before it and a rule beneath.
    public func heading(_ words: String) {
        let lines = fitting(words).split(separator: "\n").map(String.init)
        let rule = String(repeating: "─", count: lines.map(\.count).max() ?? 0)
        put("\n\(lines.map(strong).joined(separator: "\n"))\n\(rule)\n")
    }

    /// The words in bold, where that can be shown.
    public func strong(_ words: String) -> String { styled(words, "1") }

    /// Says something that the program claims, and whether it held: `✓` or `✗`.
    /// A claim that did not hold makes the program's exit status 1.
    @discardableResult
    public func claim(_ words: String, holds: Bool) -> Bool {
        lock.locked {
            if !holds { failures += 1 }
            let line = fitting("✓ \(words)", hanging: 2).dropFirst()
            write((holds ? styled("✓", "32") : styled("✗", "31")) + line + "\n")
        }
        return holds
    }

    /// Prints rows in aligned columns, wrapped where they are wider than the terminal. A column of numbers is aligned on
    /// the right.
    public func table(_ header: [String], _ rows: [[String]]) {
        let layout = TableLayout([header] + rows, width: width)
        let lines = (0..<layout.count).map { row in
            layout.lines(row).map { (row == 0 ? strong($0) : $0) + "\n" }.joined()
        }
        put(lines.joined())
    }

    /// Prints a bar as long as `value` is, measured by `most`; its figure stands behind it.
    /// - Parameter width: characters for the words in front.
    public func bar(_ words: String, _ value: Double, of most: Double, width: Int = 24, figure: String) {
        let room = max(10, columns - width - figure.count - 3)
        let share = most > 0 ? min(max(value / most, 0), 1) : 0
        let eighths = Int((share * Double(room) * 8).rounded())
        var bar = String(repeating: "█", count: eighths / 8)
        if eighths % 8 > 0 { bar.append(Array("▏▎▍▌▋▊▉")[eighths % 8 - 1]) }
        let front = String(words.prefix(width))
        let gap = String(repeating: " ", count: width - front.count)
        put("\(front)\(gap) \(styled(bar, "36")) \(figure)\n")
    }

    /// Puts a line where the last one of these was; `nil` takes it away. Nothing on a plain output, and nothing new on a
    /// terminal that takes no more at present: there is no need to wait with a line that the next one replaces.
    ///
    /// The terminal itself cuts it at its edge, however narrow it is and however wide the characters are: of a line that
    /// went over, a part would stay.
    public func status(_ line: String?) {
        guard !plain, line == nil || canBeWritten() else { return }
        put("\r\u{1b}[K" + (line.map { "\u{1b}[?7l\($0)\u{1b}[?7h" } ?? ""))
    }

    /// Draws a recording.
    public func draw(_ recording: Recording) { put(recording.drawing(columns: columns, coloured: !plain)) }

    private func put(_ text: String) { lock.locked { write(text) } }

    private func fitting(_ line: String, hanging: Int? = nil) -> String {
        width.map { wrapped(line, to: $0, hanging: hanging) } ?? line
    }

    private func styled(_ words: String, _ style: String) -> String {
        plain || words.isEmpty ? words : "\u{1b}[\(style)m\(words)\u{1b}[0m"
    }
}

/// The first thing that the system said when it did not take the output.
private final class Failure: Sendable {
    private let first = Atomic<Int32>(0)

    var code: Int32 { first.load(ordering: .acquiring) }

    func note(_ code: Int32) {
        // A reader that went away is no reason to stop, and none to fail.
        if code == 0 || code == EPIPE { return }
        _ = first.compareExchange(expected: 0, desired: code, ordering: .acquiringAndReleasing)
    }
}
