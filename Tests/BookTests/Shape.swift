let thePitfalls = "The pitfalls"

/// The parts of a chapter's tutorial, in their order. Authors: these are the exact headings at level two.
let parts = [
    "You will be able to", "Run it first", "The problem", "The invariants", "Predict", "Build it",
    thePitfalls,
    "On Windows", "Why not …?", "Checkpoint", "Questions", "Exercise", "Before and after",
]

/// What a pitfall that is told in full says, each as the beginning of bold text: `**Symptom.**`.
let labels = ["Symptom", "Shown by", "Cause", "Fix", "Held by", "Cost"]

/// Every chapter has its tutorial, and the tutorial has all its parts.
func checkShape(_ project: Project) -> [String] {
    project.chapters.flatMap { chapter -> [String] in
        guard let text = project.files[chapter.tutorial] else { return ["there is no \(chapter.tutorial)"] }
        return shapeComplaints(Markdown(text), of: chapter).map { "\(chapter.tutorial): \($0)" }
    }
}

private func shapeComplaints(_ text: Markdown, of chapter: Chapter) -> [String] {
    var complaints = headComplaints(text, of: chapter)
    let found = text.headings.filter { $0.level == 2 }.map(\.text)
    if found != parts {
        complaints.append("its parts are \(found), but should be \(parts)")
        return complaints
    }
    for title in parts {
        guard let range = text.section(title) else { continue }
        let body = Part(text, range)
        if body.isEmpty { complaints.append("'\(title)' is empty") }
        complaints += partComplaints(body, title: title, chapter: chapter).map { "'\(title)': \($0)" }
    }
    return complaints
}

private func headComplaints(_ text: Markdown, of chapter: Chapter) -> [String] {
    var complaints: [String] = []
    let titles = text.headings.filter { $0.level == 1 }
    if titles.count != 1 || titles.first?.line != 1 || !titles[0].text.hasPrefix("\(chapter.number) · ") {
        complaints.append("it should begin with its only title, '# \(chapter.number) · …'")
    }
    let end = text.headings.first { $0.level == 2 }?.line ?? text.lines.count
    let head = text.lines.prefix(end).dropFirst()
    let isPromise = { (line: String) in line.first?.isLetter == true || line.hasPrefix("*") }
    if !head.contains(where: isPromise) { complaints.append("no promise under the title") }
    if !text.links.contains(where: { $0.isImage && $0.line < end }) {
        complaints.append("no picture under the title")
    }
    return complaints
}

/// One part of a tutorial, with what stands in it.
private struct Part {
    let prose: [String]
    let fences: [Markdown.Fence]
    let headings: [Markdown.Heading]
    let text: Markdown

    init(_ text: Markdown, _ range: Range<Int>) {
        self.text = text
        prose = Array(text.prose[range])
        fences = text.fences.filter { range.contains($0.line - 1) }
        headings = text.headings.filter { range.contains($0.line - 1) && $0.level == 3 }
    }

    var isEmpty: Bool { prose.allSatisfy { $0.trimmed.isEmpty } && fences.isEmpty }

    func part(_ heading: Markdown.Heading) -> Part { Part(text, text.range(of: heading)) }

    /// Items of a list at the left margin.
    var items: [String] { prose.filter { $0.hasPrefix("- ") || $0.hasPrefix("* ") } }

    /// How many answers are folded. Nil if a fold is opened and never closed.
    var folds: Int? {
        let opened = prose.count { $0.contains("<details") }
        let summaries = prose.count { $0.contains("<summary>") && $0.contains("</summary>") }
        return opened == prose.count { $0.contains("</details>") } && opened == summaries ? opened : nil
    }

    func hasCommand(_ words: String) -> Bool {
        fences.contains { $0.language != "swift" && $0.body.contains { $0.contains(words) } }
    }
}

private func partComplaints(_ part: Part, title: String, chapter: Chapter) -> [String] {
    var complaints: [String] = []
    func expect(_ holds: Bool, _ complaint: String) {
        if !holds { complaints.append(complaint) }
    }
    switch title {
    case "You will be able to":
        expect(part.items.count == 3, "three list items, not \(part.items.count)")
    case "Run it first":
        expect(part.hasCommand("swift run \(chapter.product ?? "")"), "no command that runs the chapter")
        expect(part.fences.contains { $0.language == "text" }, "no output (a fence marked text)")
    case "The invariants":
        let names = declaredInvariants(part.prose, of: chapter)
        let expected = names.indices.map { "\(chapter.invariantPrefix)\($0 + 1)" }
        expect(!names.isEmpty, "no invariant; write '- **\(chapter.invariantPrefix)1** …'")
        expect(names == expected, "numbered \(names), not \(expected)")
    case "Predict":
        expect((part.folds ?? 0) >= 1, "no folded answer, or a fold without summary or end")
    case "Questions":
        expect((part.folds ?? 0) >= 2, "fewer than two folded answers, or a fold without summary or end")
    case "Build it":
        complaints += sliceComplaints(part)
    case thePitfalls:
        complaints += pitfallComplaints(part)
    case "On Windows":
        expect(part.prose.contains { $0.hasPrefix("|") && $0.contains("---") }, "no table")
    case "Why not …?":
        expect(
            (2...3).contains(part.headings.count), "two or three rejected ways, not \(part.headings.count)")
    case "Checkpoint":
        expect(part.hasCommand("swift "), "no command")
    default:
        break
    }
    return complaints
}

/// The names in a list such as `- **I2.1** …`, in order.
private func declaredInvariants(_ lines: [String], of chapter: Chapter) -> [String] {
    lines.compactMap { line in
        guard line.hasPrefix("- **\(chapter.invariantPrefix)") else { return nil }
        return String(line.dropFirst("- **".count).prefix { $0 != "*" && $0 != " " && $0 != ":" })
    }
}

private func sliceComplaints(_ part: Part) -> [String] {
    var complaints: [String] = []
    let slices = part.headings
    if !(3...6).contains(slices.count) { complaints.append("three to six slices, not \(slices.count)") }
    for (number, slice) in slices.enumerated() {
        if !slice.text.hasPrefix("Slice \(number + 1): ") {
            complaints.append("'\(slice.text)' should be called 'Slice \(number + 1): …'")
        }
        let body = part.part(slice)
        if !body.fences.contains(where: { $0.source != nil }) {
            complaints.append("'\(slice.text)' shows no listing")
        }
        if !body.prose.contains(where: { $0.hasPrefix("**Try it") }) {
            complaints.append("'\(slice.text)' ends in nothing to try")
        }
    }
    return complaints
}

private func pitfallComplaints(_ part: Part) -> [String] {
    var complaints: [String] = []
    let told = part.headings.filter { slugAtStart(of: "### " + $0.text) != nil }
    if !(3...6).contains(told.count) { complaints.append("three to six told in full, not \(told.count)") }
    for heading in told {
        let body = part.part(heading)
        for label in labels where !body.prose.contains(where: { $0.contains("**\(label)") }) {
            complaints.append("\(heading.text) lacks '**\(label)'")
        }
        if !body.fences.contains(where: { $0.source?.contains("/Pitfalls/") == true }) {
            complaints.append("\(heading.text) shows no broken code")
        }
    }
    return complaints
}

/// Every invariant that a tutorial declares is cited in code and in tests, and every one cited is declared.
func checkInvariants(_ project: Project) -> [String] {
    var complaints: [String] = []
    var declared: Set<String> = []
    let inCode = citations(project, project.swift(below: "Sources"))
    let inTests = citations(project, project.swift(below: "Tests"))
    for chapter in project.chapters {
        let lines = part("The invariants", of: chapter, in: project).lines
        for name in declaredInvariants(lines, of: chapter) {
            declared.insert(name)
            if inCode[name] == nil { complaints.append("\(name) is not cited in Sources") }
            if inTests[name] == nil { complaints.append("\(name) is not cited in Tests") }
        }
    }
    for (name, file) in inCode.merging(inTests, uniquingKeysWith: { first, _ in first }) {
        if !declared.contains(name) { complaints.append("\(file): no tutorial declares \(name)") }
    }
    return complaints.sorted()
}

/// Every name like `I2.3`, with the first file in which it stands.
private func citations(_ project: Project, _ files: [String]) -> [String: String] {
    var found: [String: String] = [:]
    for file in files {
        for name in invariants(in: project.files[file] ?? "") where found[name] == nil { found[name] = file }
    }
    return found
}

func invariants(in text: String) -> [String] {
    let bytes = Array(text.utf8)
    func isDigit(_ place: Int) -> Bool { place < bytes.count && (48...57).contains(bytes[place]) }
    var found: [String] = []
    for start in bytes.indices where bytes[start] == UInt8(ascii: "I") && isDigit(start + 1) {
        if start > 0, isDigit(start - 1) || bytes[start - 1] == UInt8(ascii: "_") || bytes[start - 1] > 64 {
            continue
        }
        var dot = start + 1
        while isDigit(dot) { dot += 1 }
        guard dot < bytes.count, bytes[dot] == UInt8(ascii: "."), isDigit(dot + 1) else { continue }
        var end = dot + 1
        while isDigit(end) { end += 1 }
        found.append(String(decoding: bytes[start..<end], as: UTF8.self))
    }
    return found
}
