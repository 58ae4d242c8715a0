/// Every diagram is well formed, readable in light and dark, and shown in a tutorial.
func checkDrawings(_ project: Project) -> [String] {
    let shown = project.pages.map { project.files[$0] ?? "" }.joined()
    var complaints: [String] = []
    for file in project.below("diagrams", suffix: ".svg") {
        let text = project.files[file] ?? ""
        if let fault = faultOfXML(text, root: "svg") { complaints.append("\(file): \(fault)") }
        if !text.contains("<style") || !text.contains("prefers-color-scheme") {
            complaints.append("\(file): not drawn for light and dark")
        }
        for wanted in ["viewBox=", "<title", "http://www.w3.org/2000/svg"] where !text.contains(wanted) {
            complaints.append("\(file): no \(wanted)")
        }
        if !shown.contains("](../\(file))"), !shown.contains("](\(file))") {
            complaints.append("\(file): no page shows it")
        }
    }
    return complaints
}

/// What keeps a text from being well-formed XML, as far as tags, attributes and entities go. Nil if nothing.
func faultOfXML(_ text: String, root: String) -> String? {
    var open: [String] = []
    var roots: [String] = []
    var rest = text[...]
    func skip(past end: String) -> Bool {
        guard let found = rest.range(of: end) else { return false }
        rest = rest[found.upperBound...]
        return true
    }
    while let next = rest.first {
        if next != "<" {
            let run = rest.prefix { $0 != "<" }
            if let fault = faultOfEntities(run) { return fault }
            if open.isEmpty, run.contains(where: { !$0.isWhitespace }) { return "text outside the root" }
            rest = rest[run.endIndex...]
        } else if rest.hasPrefix("<!--") {
            if !skip(past: "-->") { return "a comment without an end" }
        } else if rest.hasPrefix("<![CDATA[") {
            if !skip(past: "]]>") { return "CDATA without an end" }
        } else if rest.hasPrefix("<?") {
            if !skip(past: "?>") { return "a processing instruction without an end" }
        } else if rest.hasPrefix("<!") {
            if !skip(past: ">") { return "a declaration without an end" }
        } else if rest.hasPrefix("</") {
            let name = String(rest.dropFirst(2).prefix { $0 != ">" }).trimmed
            guard open.popLast() == name else { return "</\(name)> closes what is not open" }
            if !skip(past: ">") { return "</\(name) without an end" }
        } else {
            rest = rest.dropFirst()
            let name = String(rest.prefix { !$0.isWhitespace && $0 != ">" && $0 != "/" })
            rest = rest.dropFirst(name.count)
            if open.isEmpty { roots.append(name) }
            switch readAttributes(&rest) {
            case .left: open.append(name)
            case .closed: break
            case .fault(let fault): return "<\(name)>: \(fault)"
            }
        }
    }
    if let last = open.last { return "<\(last)> is never closed" }
    return roots == [root] ? nil : "the root is \(roots), not one <\(root)>"
}

private enum TagEnd {
    /// `>`: what follows is inside.
    case left
    /// `/>`
    case closed
    case fault(String)
}

private func readAttributes(_ rest: inout Substring) -> TagEnd {
    var names: Set<String> = []
    while true {
        let spaces = rest.prefix { $0.isWhitespace }
        rest = rest[spaces.endIndex...]
        if rest.hasPrefix("/>") {
            rest = rest.dropFirst(2)
            return .closed
        }
        if rest.first == ">" {
            rest = rest.dropFirst()
            return .left
        }
        let name = String(rest.prefix { $0 != "=" && $0 != ">" && $0 != "<" && !$0.isWhitespace })
        rest = rest.dropFirst(name.count)
        guard !name.isEmpty, !spaces.isEmpty, rest.first == "=" else {
            return .fault("a bad attribute '\(name)'")
        }
        if !names.insert(name).inserted { return .fault("\(name) stands there twice") }
        rest = rest.dropFirst()
        guard let quote = rest.first, quote == "\"" || quote == "'" else {
            return .fault("\(name) without quotes")
        }
        let value = rest.dropFirst().prefix { $0 != quote }
        guard value.endIndex < rest.endIndex, !value.contains("<") else {
            return .fault("\(name) without an end")
        }
        if let fault = faultOfEntities(value) { return .fault(fault) }
        rest = rest[value.endIndex...].dropFirst()
    }
}

private func faultOfEntities(_ text: Substring) -> String? {
    for piece in text.split(separator: "&", omittingEmptySubsequences: false).dropFirst() {
        let name = piece.prefix { $0 != ";" }
        let isKnown = ["amp", "lt", "gt", "quot", "apos"].contains(name) || name.hasPrefix("#")
        if !isKnown || name.count == piece.count { return "a bare & before '\(piece.prefix(8))'" }
    }
    return nil
}
