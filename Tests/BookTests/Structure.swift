/// A chapter's library stays small enough to be read. Blank lines and comments are not counted.
enum LibraryLimit {
    static let linesInAFile = 260
    static let linesInAChapter = 860
    /// Reordering is what all later chapters stand on: two values, a connection, and the service around it. File transfer
    /// is two halves of an exchange, each with its state, its file and its connection. A connection of chapter 05 can also be
    /// brought to rest, which chapter 12 needs.
    /// The port is the book's longest idea; it also moves a handle, and its server outlives a lack of descriptors.
    /// The thread pool is four kinds of task on threads of their own, and a server with limits on top.
    /// Server and client are one endpoint with everything that a server is asked for: limits, bans, jobs, files, a way back.
    /// Tasks are an executor, every operation awaited, a connection and its sequences, and a server that ends them.
    static let exceptions = [
        "02": 950, "05": 1_600, "08": 1_330, "10": 1_010, "11": 1_640,
        "13": 1_020,
    ]
}

/// What may lie in the root folder. Names that begin with a dot are the reader's own business.
private let allowed: Set = [
    "LICENSE", "Package.swift", "Package.resolved", "README.md", "Sources", "Tests", "Tutorials", "diagrams",
]

/// Everything that a chapter consists of is there, and nothing lies in the root that does not belong there.
func checkLayout(_ project: Project) -> [String] {
    var complaints: [String] = []
    let ignored = (project.files[".gitignore"] ?? "").lines.map(\.trimmed)
    for name in project.topLevel.sorted() where !allowed.contains(name) && !name.hasPrefix(".") {
        let isIgnored = ignored.contains {
            $0 == name || $0 == "/" + name || ($0.hasPrefix("*.") && name.hasSuffix($0.dropFirst()))
        }
        if !isIgnored { complaints.append("\(name) does not belong in the root folder") }
    }
    for chapter in project.chapters {
        for folder in ["Library", "Pitfalls", "Demo"] {
            let path = "Sources/\(chapter.folder)/\(folder)"
            if project.swift(below: path).isEmpty { complaints.append("there is no \(path)") }
        }
        let tests = "Tests/\(chapter.folder)Tests"
        for kind in ["Pitfalls", "Fixes"] {
            let names = project.swift(below: tests).map { $0.dropFirst(tests.count + 1) }
            if !names.contains(where: { $0.hasPrefix(kind) }) {
                complaints.append("there is no \(tests)/\(kind).swift")
            }
        }
        if !project.below("diagrams", suffix: ".svg").contains(where: {
            $0.hasPrefix("diagrams/\(chapter.number)-")
        }) {
            complaints.append("\(chapter) has no diagram")
        }
    }
    return complaints
}

/// The README's table, the start page, the tour and the manifest agree with `Sources/`.
func checkTableOfContents(_ project: Project) -> [String] {
    var complaints: [String] = []
    let chapters = project.chapters
    if project.manifest.map(\.folder).filter({ folder in chapters.contains { $0.folder == folder } })
        != chapters.map(\.folder)
    {
        complaints.append("Package.swift lists \(project.manifest.map(\.folder)), Sources has \(chapters)")
    }
    let rows = (project.files["README.md"] ?? "").lines.filter { line in
        let cells = line.split(separator: "|").map { String($0).trimmed }
        return line.hasPrefix("|") && cells.first?.count == 2 && Int(cells[0]) != nil
            && !project.announced.contains { $0.number == cells[0] }
    }
    if rows.count != chapters.count {
        complaints.append("README.md: a table of \(rows.count) chapters; Sources has \(chapters.count)")
    }
    for (row, chapter) in zip(rows, chapters) {
        for wanted in [
            "| \(chapter.number) |", "](\(chapter.tutorial))", "`swift run \(chapter.product ?? "?")`",
        ]
        where !row.contains(wanted) {
            complaints.append("README.md: the row of \(chapter) lacks \(wanted)")
        }
    }
    let tour = project.swift(below: "Sources/Tour").map { project.files[$0] ?? "" }.joined()
    for chapter in chapters where !tour.contains("\"\(chapter.product ?? chapter.folder)\"") {
        complaints.append("Sources/Tour: \(chapter) is no stop of the tour")
    }
    let start = Markdown(project.files["Tutorials/README.md"] ?? "").links.map { "Tutorials/" + $0.target }
    for chapter in chapters where !start.contains(chapter.tutorial) {
        complaints.append("Tutorials/README.md: no link to \(chapter.tutorial)")
    }
    return complaints
}

/// Files of the libraries and of Kernel stay within their limits.
func checkSizes(_ project: Project) -> [String] {
    var complaints: [String] = []
    func lines(below folder: String) -> Int {
        var total = 0
        for file in project.swift(below: folder) {
            let lines = (project.files[file] ?? "").lines.map(\.trimmed).count {
                !$0.isEmpty && !$0.hasPrefix("//")
            }
            total += lines
            if lines > LibraryLimit.linesInAFile {
                complaints.append("\(file): \(lines) lines, more than \(LibraryLimit.linesInAFile)")
            }
        }
        return total
    }
    _ = lines(below: "Sources/Kernel")
    for chapter in project.chapters {
        let total = lines(below: "Sources/\(chapter.folder)/Library")
        let limit = LibraryLimit.exceptions[chapter.number] ?? LibraryLimit.linesInAChapter
        if total > limit {
            complaints.append("\(chapter)'s library: \(total) lines, more than \(limit)")
        }
    }
    return complaints
}

/// No package dependency, no Foundation, and a chapter builds on earlier chapters only.
func checkImports(_ project: Project) -> [String] {
    var complaints: [String] = []
    if (project.files["Package.swift"] ?? "").contains(".package(") {
        complaints.append("Package.swift: a package dependency")
    }
    let chapters = project.chapters
    for file in project.swift(below: "Sources") + project.swift(below: "Tests") {
        let home = chapters.first { file.contains("/\($0.folder)/") || file.contains("/\($0.folder)Tests/") }
        for line in (project.files[file] ?? "").lines {
            guard let module = imported(by: line) else { continue }
            if module.hasPrefix("Foundation"), file.hasPrefix("Sources/") {
                complaints.append("\(file): imports \(module)")
            }
            let other = chapters.first { module.hasPrefix($0.module) }
            if let other, let home, other.number > home.number {
                complaints.append(
                    "\(file): chapter \(home.number) imports \(module) of chapter \(other.number)")
            }
            let isGround = ["Kernel", "Timeline", "Stage"].contains { file.hasPrefix("Sources/\($0)/") }
            if other != nil, isGround { complaints.append("\(file): imports the chapter \(module)") }
        }
    }
    return complaints
}

/// The module that a line imports: `import Kernel`, `@testable import Kernel`, `import struct Kernel.Address`.
private func imported(by line: String) -> String? {
    let words = line.split(separator: " ")
    guard let place = words.firstIndex(of: "import"), place + 1 < words.count,
        words[..<place].allSatisfy({ $0.hasPrefix("@") || $0 == "public" || $0 == "internal" })
    else { return nil }
    return words.last.map { String($0.prefix { $0 != "." }) }
}

/// Types called `Broken…` are declared under `Pitfalls/` and nowhere else.
func checkBrokenTypes(_ project: Project) -> [String] {
    let keywords: Set<Substring> = ["struct", "class", "enum", "actor", "protocol", "typealias", "func"]
    var complaints: [String] = []
    for file in project.swift(below: "Sources") where !file.contains("/Pitfalls/") {
        for line in (project.files[file] ?? "").lines where line.contains("roken") {
            let words = line.split(separator: " ")
            for (keyword, name) in zip(words, words.dropFirst())
            where keywords.contains(keyword) && name.lowercased().hasPrefix("broken") {
                complaints.append("\(file): \(name) is declared outside Pitfalls")
            }
        }
    }
    return complaints
}

/// What the dictionary calls ours is found in the code.
func checkDictionary(_ project: Project) -> [String] {
    let page = "Tutorials/dictionary.md"
    let code = Set(
        project.swift(below: "Sources").flatMap { file in
            (project.files[file] ?? "").split { !$0.isLetter && !$0.isNumber && $0 != "_" }.map(String.init)
        })
    var complaints: [String] = []
    var ours = 1
    var entries = 0
    for row in (project.files[page] ?? "").lines where row.hasPrefix("| ") {
        let cells = row.split(separator: "|").map { String($0).trimmed }
        if cells.first == "Win32" { ours = cells.firstIndex(of: "here") ?? 1 }
        guard row.hasPrefix("| `") else { continue }
        entries += 1
        guard cells.count > ours else {
            complaints.append("\(page): a cell is missing: \(row)")
            continue
        }
        for (number, piece) in cells[ours].split(separator: "`", omittingEmptySubsequences: false)
            .enumerated()
        where number % 2 == 1 {
            for name in piece.split(whereSeparator: { !$0.isLetter && !$0.isNumber && $0 != "_" })
            where !code.contains(String(name)) {
                complaints.append("\(page): there is no \(name) in the code: \(cells[ours])")
            }
        }
    }
    if entries == 0 { complaints.append("\(page): no entry") }
    return complaints
}
