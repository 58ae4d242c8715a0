/// Of a library's lines of code at least a third stand in listings of its chapter's tutorial, so that what is told is what
/// there is. Blank lines and comments are not counted. Chapter 11 is put together from the others, and is not held to it.
private let chapterOfComposition = "11"

func checkShown(_ project: Project) -> [String] {
    project.chapters.compactMap { chapter -> String? in
        guard chapter.number != chapterOfComposition else { return nil }
        let listings = Markdown(project.files[chapter.tutorial] ?? "").fences.filter { $0.source != nil }
        var (shown, all) = (0, 0)
        for path in project.swift(below: "Sources/\(chapter.folder)/Library") {
            let lines = (project.files[path] ?? "").lines.map(\.trimmed)
            let code = lines.indices.filter { !lines[$0].isEmpty && !lines[$0].hasPrefix("//") }
            let told = listings.filter { $0.source == path }.reduce(into: Set<Int>()) { places, listing in
                places.formUnion(place(of: listing.body.map(\.trimmed), in: lines))
            }
            all += code.count
            shown += code.count { told.contains($0) }
        }
        return shown * 3 >= all ? nil : "\(chapter): \(shown) of \(all) lines of code stand in its tutorial"
    }
}

/// The lines of a file in which a listing stands; none if it does not.
private func place(of listing: [String], in file: [String]) -> Range<Int> {
    guard let first = listing.first, listing.count <= file.count else { return 0..<0 }
    for start in 0...(file.count - listing.count) where file[start] == first {
        if file[start..<(start + listing.count)].elementsEqual(listing) {
            return start..<(start + listing.count)
        }
    }
    return 0..<0
}
