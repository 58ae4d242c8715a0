/// Every listing is a verbatim piece of the file that its comment names.
///
/// The convention for authors: the line before the fence is a comment with the path from the project's root,
/// `<!-- Sources/02-CompletionPorts/Library/CompletionPort.swift -->`. Indentation that all lines of the
/// listing share is ignored. A listing from a `Pitfalls` folder is headed `⚠︎ Broken on purpose`, or
/// `✓ Fixed` if it shows the cure.
func checkListings(_ project: Project) -> [String] {
    var complaints: [String] = []
    for page in project.pages {
        let text = Markdown(project.files[page] ?? "")
        if let line = text.openFence { complaints.append("\(page):\(line): this fence is never closed") }
        for fence in text.fences {
            let place = "\(page):\(fence.line)"
            guard let source = fence.source else {
                if fence.language == "swift" { complaints.append("\(place): a listing without its source") }
                continue
            }
            guard let file = project.files[source] else {
                complaints.append("\(place): there is no file \(source)")
                continue
            }
            if let line = firstStranger(of: fence.body, in: file.lines) {
                complaints.append("\(place): not a piece of \(source): \(line.trimmed)")
            }
            let isBroken = fence.caption.contains("Broken on purpose")
            let isFromPitfalls = source.contains("/Pitfalls/")
            if isFromPitfalls, !isBroken, !fence.caption.contains("✓ Fixed") {
                complaints.append("\(place): from Pitfalls, but not headed '⚠︎ Broken on purpose'")
            }
            if isBroken, !isFromPitfalls {
                complaints.append("\(place): headed as broken, but not from a Pitfalls folder")
            }
        }
    }
    return complaints
}

/// Nil if the listing stands in the file. Otherwise its first line that the file lacks at that place.
private func firstStranger(of listing: [String], in file: [String]) -> String? {
    let wanted = withoutCommonIndentation(listing)
    guard wanted.contains(where: { !$0.isEmpty }) else { return "(an empty listing)" }
    var longest = 0
    for start in file.indices where file[start].trimmed == wanted[0].trimmed {
        let here = withoutCommonIndentation(Array(file[start..<min(start + wanted.count, file.count)]))
        let same = zip(here, wanted).prefix { $0 == $1 }.count
        if same == wanted.count { return nil }
        longest = max(longest, same)
    }
    return wanted[longest]
}

private func withoutCommonIndentation(_ lines: [String]) -> [String] {
    let filled = lines.filter { !$0.trimmed.isEmpty }
    let common = filled.map { $0.prefix { $0 == " " }.count }.min() ?? 0
    return lines.map { $0.trimmed.isEmpty ? "" : String($0.dropFirst(common)) }
}
