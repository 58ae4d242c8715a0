/// A line of the index `Tutorials/pitfalls.md`.
struct Entry {
    let slug: String
    /// The numbers of the chapters that own it.
    let chapters: [String]
    /// The last cell: where it is told.
    let told: String
}

let index = "Tutorials/pitfalls.md"

extension Project {
    /// The index: every row of its tables whose second cell is a chapter's number, or two with a stroke.
    var pitfalls: [Entry] {
        (files[index] ?? "").lines.compactMap { line in
            let cells = line.trimmed.split(separator: "|").map { String($0).trimmed }
            guard line.trimmed.hasPrefix("|"), cells.count >= 5 else { return nil }
            let chapters = cells[1].split(separator: "/").map(String.init)
            guard !chapters.isEmpty, chapters.allSatisfy({ $0.count == 2 && Int($0) != nil }) else {
                return nil
            }
            return Entry(
                slug: cells[0].filter { $0 != "`" }, chapters: chapters, told: cells[cells.count - 1])
        }
    }

    /// The display names of the tests in files whose name begins with this: `Pitfalls`, `Fixes`.
    func displayNames(inFilesCalled prefix: String) -> [(file: String, name: String)] {
        swift(below: "Tests").flatMap { file -> [(file: String, name: String)] in
            guard file.split(separator: "/").last?.hasPrefix(prefix) == true else { return [] }
            return displayNamesOfTests(files[file] ?? "").map { (file: file, name: $0) }
        }
    }
}

/// The string right after each `@Test(`.
func displayNamesOfTests(_ source: String) -> [String] {
    source.components(separatedBy: "@Test(").dropFirst().compactMap { piece in
        let start = piece.drop { $0.isWhitespace }
        guard start.first == "\"" else { return nil }
        var name = ""
        var escaped = false
        for character in start.dropFirst() {
            if character == "\"", !escaped { break }
            escaped = character == "\\" && !escaped
            name.append(character)
        }
        return name
    }
}

/// The slugs before the colon of a display name: one, or several with commas between.
func slugs(ofDisplayName name: String) -> [String] {
    guard let colon = name.firstIndex(of: ":") else { return name.isSlug ? [name] : [] }
    return name[..<colon].split(separator: ",").map { String($0).trimmed }.filter(\.isSlug)
}

/// Every pitfall of a chapter that exists is reproduced, fixed and told, and the index knows every slug in use.
func checkSlugs(_ project: Project) -> [String] {
    let entries = project.pitfalls
    guard !entries.isEmpty else { return ["\(index): no pitfall in it"] }
    let existing = Dictionary(uniqueKeysWithValues: project.chapters.map { ($0.number, $0) })
    let reproduced = project.displayNames(inFilesCalled: "Pitfalls")
    let fixed = project.displayNames(inFilesCalled: "Fixes")
    let hasSlug = { (names: [(file: String, name: String)]) in
        Set(names.flatMap { slugs(ofDisplayName: $0.name) })
    }
    let (isReproduced, isFixed) = (hasSlug(reproduced), hasSlug(fixed))
    var complaints: [String] = []
    var seen: Set<String> = []
    for entry in entries {
        if !entry.slug.isSlug { complaints.append("\(index): '\(entry.slug)' is no slug") }
        if !seen.insert(entry.slug).inserted {
            complaints.append("\(index): \(entry.slug) stands there twice")
        }
        let owners = entry.chapters.compactMap { existing[$0] }
        if owners.isEmpty {
            let isAnnounced = project.announced.contains { entry.chapters.contains($0.number) }
            if entry.told.contains("]("), !isAnnounced {
                complaints.append("\(index): \(entry.slug) links to a chapter that does not exist yet")
            }
            continue
        }
        if !isReproduced.contains(entry.slug) { complaints.append("\(entry.slug): not reproduced") }
        if !isFixed.contains(entry.slug) { complaints.append("\(entry.slug): not fixed") }
        let tellers = owners.filter { part(thePitfalls, of: $0, in: project).mentions(entry.slug) }
        if tellers.isEmpty { complaints.append("\(entry.slug): not told in \(owners)") }
        for owner in owners where !entry.told.contains("](\(owner.tutorial.dropFirst("Tutorials/".count))") {
            complaints.append("\(index): \(entry.slug) does not link to \(owner)")
        }
    }
    for (file, name) in reproduced + fixed {
        for slug in slugs(ofDisplayName: name) where !seen.contains(slug) {
            complaints.append("\(file): the index does not know \(slug)")
        }
    }
    for chapter in project.chapters {
        for line in part(thePitfalls, of: chapter, in: project).lines {
            guard let slug = slugAtStart(of: line), !seen.contains(slug) else { continue }
            complaints.append("\(chapter.tutorial): the index does not know \(slug)")
        }
    }
    return complaints
}

/// The slug in backquotes with which a heading, a list item or a table row begins.
func slugAtStart(of line: String) -> String? {
    let start = line.trimmed.drop { "#-*| ".contains($0) }
    guard start.first == "`", "#-*|".contains(line.trimmed.first ?? " ") else { return nil }
    let slug = String(start.dropFirst().prefix { $0 != "`" })
    return slug.isSlug ? slug : nil
}

/// The text of one part of a chapter's tutorial, empty if there is none.
func part(_ title: String, of chapter: Chapter, in project: Project) -> String {
    let text = Markdown(project.files[chapter.tutorial] ?? "")
    return text.section(title).map { text.lines[$0].joined(separator: "\n") } ?? ""
}
