import Foundation

/// As much of Markdown as the book uses: headings, fences, links, images, folded answers.
struct Markdown {
    struct Fence {
        let line: Int
        /// The first word after the backquotes: `swift`, `text`, `sh`.
        let language: String
        let body: [String]
        /// The path in the comment on the line before, if there is one.
        let source: String?
        /// The last line with anything on it before that comment.
        let caption: String
    }

    struct Heading {
        let line: Int
        let level: Int
        let text: String
        let anchor: String
    }

    struct Link {
        let line: Int
        let text: String
        let target: String
        let isImage: Bool
    }

    let lines: [String]
    private(set) var fences: [Fence] = []
    private(set) var headings: [Heading] = []
    private(set) var links: [Link] = []
    /// The line at which a fence begins that is never closed.
    private(set) var openFence: Int?
    /// The lines with those of fences blanked.
    private(set) var prose: [String] = []

    init(_ text: String) {
        lines = text.lines
        readFences()
        readHeadings()
        readLinks()
    }

    /// The lines of a part: from after its heading to the next heading of the same level or above.
    func range(of heading: Heading) -> Range<Int> {
        let next = headings.first { $0.line > heading.line && $0.level <= heading.level }
        return heading.line..<(next.map { $0.line - 1 } ?? lines.count)
    }

    /// The first part at level two with this title.
    func section(_ title: String) -> Range<Int>? {
        headings.first { $0.level == 2 && $0.text == title }.map(range)
    }

    // Line numbers count from 1; `range` and `section` give indices into `lines`, which count from 0.

    private mutating func readFences() {
        var row = 0
        while row < lines.count {
            let opening = lines[row].trimmed
            let ticks = opening.prefix { $0 == "`" }.count
            guard ticks >= 3, !opening.dropFirst(ticks).contains("`") else {
                prose.append(lines[row])
                row += 1
                continue
            }
            let indentation = lines[row].prefix { $0 == " " }.count
            var end = row + 1
            while end < lines.count {
                let closing = lines[end].trimmed
                if closing.count >= ticks, closing.allSatisfy({ $0 == "`" }) { break }
                end += 1
            }
            if end == lines.count { openFence = row + 1 }
            let body = lines[min(row + 1, end)..<end].map { line in
                String(line.dropFirst(min(indentation, line.prefix { $0 == " " }.count)))
            }
            var before = row - 1
            let source = before >= 0 ? Self.path(inComment: lines[before]) : nil
            if source != nil { before -= 1 }
            while before >= 0, lines[before].trimmed.isEmpty { before -= 1 }
            fences.append(
                Fence(
                    line: row + 1,
                    language: String(
                        opening.dropFirst(ticks).trimmingCharacters(in: .whitespaces).prefix { $0 != " " }),
                    body: body, source: source, caption: before >= 0 ? lines[before] : ""))
            prose += Array(repeating: "", count: min(end + 1, lines.count) - row)
            row = end + 1
        }
    }

    private static func path(inComment line: String) -> String? {
        let line = line.trimmed
        guard line.hasPrefix("<!--"), line.hasSuffix("-->"), line.count >= 7 else { return nil }
        let path = String(line.dropFirst(4).dropLast(3)).trimmed
        return path.isEmpty || path.contains(" ") ? nil : path
    }

    private mutating func readHeadings() {
        var seen: [String: Int] = [:]
        for (row, line) in prose.enumerated() {
            let level = line.prefix { $0 == "#" }.count
            guard (1...6).contains(level), line.dropFirst(level).first == " " else { continue }
            let text = String(line.dropFirst(level)).trimmed
            let plain = Self.anchor(of: text)
            let repeats = seen[plain, default: 0]
            seen[plain] = repeats + 1
            headings.append(
                Heading(
                    line: row + 1, level: level, text: text,
                    anchor: repeats == 0 ? plain : "\(plain)-\(repeats)"))
        }
    }

    /// The name under which GitHub makes a heading reachable.
    static func anchor(of heading: String) -> String {
        var text = heading
        while let open = text.range(of: "]("), let close = text[open.upperBound...].firstIndex(of: ")") {
            text.removeSubrange(open.lowerBound...close)
        }
        return String(
            text.lowercased().compactMap { character -> Character? in
                if character == " " { return "-" }
                return character.isLetter || character.isNumber || character == "-" || character == "_"
                    ? character : nil
            })
    }

    private mutating func readLinks() {
        let original = Array(prose.joined(separator: "\n"))
        let text = Self.withoutCode(original)
        var line = 1
        for index in text.indices {
            if text[index] == "\n" { line += 1 }
            if text[index] == "]", index + 1 < text.count, text[index + 1] == "(" {
                readLink(text, original, closing: index, line: line)
            }
        }
        readHTML(String(text))
    }

    private mutating func readLink(
        _ text: [Character], _ original: [Character], closing: Int, line: Int
    ) {
        var depth = 1
        var target = ""
        var index = closing + 2
        while index < text.count, text[index] != "\n" {
            if text[index] == "(" { depth += 1 }
            if text[index] == ")" { depth -= 1 }
            if depth == 0 { break }
            target.append(text[index])
            index += 1
        }
        guard depth == 0 else { return }
        depth = 1
        var opening = closing - 1
        while opening >= 0 {
            if text[opening] == "]" { depth += 1 }
            if text[opening] == "[" { depth -= 1 }
            if depth == 0 { break }
            opening -= 1
        }
        guard opening >= 0 else { return }
        links.append(
            Link(
                line: line, text: String(original[(opening + 1)..<closing]),
                target: String(target.prefix { $0 != " " }),
                isImage: opening > 0 && text[opening - 1] == "!"))
    }

    /// What is between backquotes or in a comment becomes spaces, so that it is taken for neither link nor tag.
    private static func withoutCode(_ text: [Character]) -> [Character] {
        var text = text
        var index = 0
        while index < text.count {
            var end = index
            if text[index] == "`" {
                while end < text.count, text[end] == "`" { end += 1 }
                let ticks = end - index
                var run = 0
                var close = end
                while close < text.count {
                    run = text[close] == "`" ? run + 1 : 0
                    close += 1
                    if run == ticks, close == text.count || text[close] != "`" { break }
                    if text[close - 1] == "\n", close < text.count, text[close] == "\n" { break }
                }
                if run == ticks { end = close }
            } else if text[index...].starts(with: "<!--") {
                while end < text.count, !text[end...].starts(with: "-->") { end += 1 }
            }
            for place in index..<end where text[place] != "\n" { text[place] = " " }
            index = max(end, index + 1)
        }
        return text
    }

    private mutating func readHTML(_ text: String) {
        for (row, line) in text.lines.enumerated() {
            for (attribute, isImage) in [("src=\"", true), ("srcset=\"", false), ("href=\"", false)] {
                for piece in line.components(separatedBy: attribute).dropFirst() {
                    let alternative = line.components(separatedBy: "alt=\"").dropFirst().first
                    links.append(
                        Link(
                            line: row + 1, text: String((alternative ?? "").prefix { $0 != "\"" }),
                            target: String(piece.prefix { $0 != "\"" }), isImage: isImage))
                }
            }
        }
    }
}
