import Timeline

/// Rows in aligned columns, each line at most `width` long if that can be done without cutting a word: the widest
/// columns are wrapped. A column of numbers is aligned on the right.
struct TableLayout {
    private let rows: [[String]]
    private let widths: [Int]
    private let isNumeric: [Bool]

    init(_ rows: [[String]], width: Int?) {
        let count = rows.map(\.count).max() ?? 0
        let rows = rows.map { $0 + Array(repeating: "", count: count - $0.count) }
        var widths = (0..<count).map { column in rows.map { $0[column].count }.max() ?? 0 }
        if let width {
            // What cannot be made narrower: a column's longest word.
            let least = (0..<count).map { column in
                rows.flatMap { $0[column].split(separator: " ").map(\.count) }.max() ?? 0
            }
            while widths.reduce(0, +) + 2 * max(0, count - 1) > width {
                let wide = (0..<count).filter { widths[$0] > least[$0] }.max { widths[$0] < widths[$1] }
                guard let wide else { break }
                widths[wide] -= 1
            }
        }
        self.rows = rows
        self.widths = widths
        isNumeric = (0..<count).map { column in
            let cells = rows.dropFirst().map { $0[column] }.filter { !$0.isEmpty }
            return !cells.isEmpty && cells.allSatisfy { $0.first!.isNumber || "-+".contains($0.first!) }
        }
    }

    /// The lines of a row, the header being the first one.
    func lines(_ row: Int) -> [String] {
        let cells = rows[row].enumerated().map { column, text in
            wrapped(text, to: max(widths[column], 1)).split(separator: "\n", omittingEmptySubsequences: false)
        }
        return (0..<(cells.map(\.count).max() ?? 0)).map { index in
            var line = ""
            for (column, parts) in cells.enumerated() {
                let text = index < parts.count ? parts[index] : ""
                let gap = String(repeating: " ", count: max(0, widths[column] - text.count))
                line += (isNumeric[column] ? gap + text : text + gap) + "  "
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }

    var count: Int { rows.count }
}
