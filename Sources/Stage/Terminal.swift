import CKernel
import Glibc
import Kernel
import Timeline

/// What a program prints: headings, tables, bars, timelines, and claims that it remembers.
///
/// Usable from any thread; each call's lines stay together.
public final class Terminal: @unchecked Sendable {
    /// Without colours, since the output is no terminal, `NO_COLOR` is set, or `--plain` was given.
    public let plain: Bool
    /// The width, in characters.
    public let columns: Int

    private let write: @Sendable (String) -> Void
    private let lock = Lock()
    private var failures = 0  // under the lock

    /// The standard output.
    /// - Parameter plain: `true` for no colours even where they could be shown.
    public init(plain: Bool = false) {
        self.plain =
            plain || isatty(STDOUT_FILENO) == 0 || !(getenv("NO_COLOR").map { $0.pointee == 0 } ?? true)
        var size: [Int32] = [0, 0]  // the system's four 16-bit numbers: rows, columns, and the same in pixels
        let asked = size.withUnsafeMutableBufferPointer {
            ck_ioctl_int(STDOUT_FILENO, UInt(TIOCGWINSZ), $0.baseAddress)
        }
        let width = asked == 0 ? Int(UInt32(bitPattern: size[0]) >> 16) : 0
        columns = width == 0 ? 100 : min(max(width, 40), 160)
        // A reader that went away is no reason to stop: what is claimed is in the exit status, too.
        write = { _ = writeAll(STDOUT_FILENO, $0) }
    }

    /// An output of one's own, for tests.
    public init(plain: Bool, columns: Int, write: @escaping @Sendable (String) -> Void) {
        self.plain = plain
        self.columns = columns
        self.write = write
    }

    /// 0 as long as all claims held, else 1.
    public var exitStatus: Int32 { lock.locked { failures == 0 ? 0 : 1 } }

    /// Ends the program with ``exitStatus``.
    public func finish() -> Never { exit(exitStatus) }

    /// Prints a line.
    public func say(_ line: String = "") { put(line + "\n") }

    /// Prints a heading, with a blank line before it and a rule beneath.
    public func heading(_ words: String) {
        let rule = String(repeating: "─", count: min(words.count, columns))
        put("\n\(strong(words))\n\(rule)\n")
    }

    /// The words in bold, where that can be shown.
    public func strong(_ words: String) -> String { styled(words, "1") }

    /// Says something that the program claims, and whether it held: `✓` or `✗`.
    /// A claim that did not hold makes the program's exit status 1.
    @discardableResult
    public func claim(_ words: String, holds: Bool) -> Bool {
        lock.locked {
            if !holds { failures += 1 }
            write((holds ? styled("✓", "32") : styled("✗", "31")) + " \(words)\n")
        }
        return holds
    }

    /// Prints rows in aligned columns. A column of numbers is aligned on the right.
    public func table(_ header: [String], _ rows: [[String]]) {
        let count = max(header.count, rows.map(\.count).max() ?? 0)
        func cell(_ row: [String], _ column: Int) -> String { column < row.count ? row[column] : "" }
        var lines = ""
        let widths = (0..<count).map { column in
            ([header] + rows).map { cell($0, column).count }.max() ?? 0
        }
        let isNumeric = (0..<count).map { column in
            let cells = rows.map { cell($0, column) }.filter { !$0.isEmpty }
            return !cells.isEmpty && cells.allSatisfy { $0.first!.isNumber || "-+".contains($0.first!) }
        }
        for (index, row) in ([header] + rows).enumerated() {
            var line = ""
            for column in 0..<count {
                let text = cell(row, column)
                let gap = String(repeating: " ", count: widths[column] - text.count)
                line += (isNumeric[column] ? gap + text : text + gap) + "  "
            }
            while line.last == " " { line.removeLast() }
            lines += (index == 0 ? strong(line) : line) + "\n"
        }
        put(lines)
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

    /// Puts a line where the last one of these was; `nil` takes it away. Nothing on a plain output.
    ///
    /// The terminal itself cuts it at its edge, however narrow it is and however wide the characters are: of a line that
    /// went over, a part would stay.
    public func status(_ line: String?) {
        guard !plain else { return }
        put("\r\u{1b}[K" + (line.map { "\u{1b}[?7l\($0)\u{1b}[?7h" } ?? ""))
    }

    /// Draws a recording.
    public func draw(_ recording: Recording) { put(recording.drawing(columns: columns, coloured: !plain)) }

    private func put(_ text: String) { lock.locked { write(text) } }

    private func styled(_ words: String, _ style: String) -> String {
        plain || words.isEmpty ? words : "\u{1b}[\(style)m\(words)\u{1b}[0m"
    }
}
