/// Every relative link leads somewhere, to the heading if it names one; every image says its point in words.
func checkLinks(_ project: Project) -> [String] {
    var complaints: [String] = []
    let announced = project.announced.map(\.tutorial)
    var parsed: [String: Markdown] = [:]
    for page in project.pages { parsed[page] = Markdown(project.files[page] ?? "") }
    for page in project.pages {
        for link in parsed[page]?.links ?? [] {
            let place = "\(page):\(link.line)"
            if link.isImage, link.text.split(separator: " ").count < 3 {
                complaints.append("\(place): the picture \(link.target) does not say its point in words")
            }
            if link.target.contains("://") || link.target.hasPrefix("mailto:") { continue }
            let parts = link.target.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
            let path = parts[0].isEmpty ? page : resolve(String(parts[0]), from: page)
            if announced.contains(path ?? "") { continue }
            guard let path, project.exists(path) else {
                complaints.append("\(place): \(link.target) leads nowhere")
                continue
            }
            guard parts.count == 2 else { continue }
            let anchors = (parsed[path]?.headings ?? []).map(\.anchor)
            if !anchors.contains(String(parts[1])) {
                complaints.append("\(place): \(path) has no heading #\(parts[1])")
            }
        }
    }
    return complaints
}

/// The path from the root. Nil if the link is absolute or leaves the project.
private func resolve(_ target: String, from page: String) -> String? {
    guard !target.hasPrefix("/") else { return nil }
    var parts = page.split(separator: "/").dropLast().map(String.init)
    for part in target.split(separator: "/") where part != "." {
        if part != ".." {
            parts.append(String(part))
        } else if parts.popLast() == nil {
            return nil
        }
    }
    return parts.joined(separator: "/")
}
