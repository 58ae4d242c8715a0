/// A line cut at blanks so that no part is longer than `columns`; a word that is longer than that stays whole.
/// - Parameter hanging: how far the further parts are indented, beyond the line's own blanks in front if it is `nil`.
package func wrapped(_ line: String, to columns: Int, hanging: Int? = nil) -> String {
    if line.count <= columns { return line }
    if line.contains("\n") {
        return line.split(separator: "\n", omittingEmptySubsequences: false).map {
            wrapped(String($0), to: columns, hanging: hanging)
        }.joined(separator: "\n")
    }
    let indentation = line.prefix { $0 == " " }.count
    let hang = min(hanging ?? indentation, columns / 2)
    var parts: [String] = []
    var part = ""
    var front = Substring(line)
    // The blanks before a word belong to it as long as it stays on the line: columns stay columns.
    while !front.isEmpty {
        let blanks = front.prefix { $0 == " " }
        let word = front[blanks.endIndex...].prefix { $0 != " " }
        front = front[word.endIndex...]
        let isFirst = part.allSatisfy { $0 == " " }
        if isFirst || part.count + blanks.count + word.count <= columns {
            part += blanks + word
        } else if !word.isEmpty {
            parts.append(part)
            part = String(repeating: " ", count: hang) + word
        }
    }
    return (parts + [part]).joined(separator: "\n")
}
