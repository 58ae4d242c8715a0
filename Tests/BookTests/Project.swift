import Foundation

/// The project as the checks see it: the path of every file from the root, and its text.
///
/// Every check is a function from a `Project` to its complaints, so that a small project made up in memory
/// can show that the check catches what it is there to catch.
struct Project: Sendable {
    /// Path from the root, with `/` between the parts, to the file's text. Empty for what is not text.
    var files: [String: String]

    /// The names in the root folder.
    var topLevel: Set<String>

    /// This project, as it lies on the disk.
    static let here = Project(
        root: URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path)

    init(files: [String: String]) {
        self.files = files
        topLevel = Set(files.keys.map { String($0.prefix { $0 != "/" }) })
    }

    init(root: String) {
        var files: [String: String] = [:]
        let names = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
        for name in names where ![".build", ".git"].contains(name) && !name.hasPrefix(".build-") {
            var isFolder: ObjCBool = false
            let path = root + "/" + name
            guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else { continue }
            let below = (try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? []
            for file in isFolder.boolValue ? below.map({ name + "/" + $0 }) : [name] {
                let full = root + "/" + file
                guard FileManager.default.fileExists(atPath: full, isDirectory: &isFolder),
                    !isFolder.boolValue
                else { continue }
                files[file] = (try? String(contentsOfFile: full, encoding: .utf8)) ?? ""
            }
        }
        self.files = files
        topLevel = Set(names)
    }

    /// The pages of the book: the README and everything in `Tutorials/`, in order.
    var pages: [String] {
        files.keys.filter { $0.hasSuffix(".md") && ($0.hasPrefix("Tutorials/") || !$0.contains("/")) }
            .sorted()
    }

    /// The files below a folder, in order.
    func below(_ folder: String, suffix: String = "") -> [String] {
        files.keys.filter { $0.hasPrefix(folder + "/") && $0.hasSuffix(suffix) }.sorted()
    }

    /// All Swift of the book's own code below a folder. These checks are left out: their samples are made up.
    func swift(below folder: String) -> [String] {
        below(folder, suffix: ".swift").filter { !$0.hasPrefix("Tests/BookTests/") }
    }

    func exists(_ path: String) -> Bool {
        path.isEmpty || files[path] != nil || files.keys.contains { $0.hasPrefix(path + "/") }
    }
}

/// A chapter that has a folder under `Sources/`.
struct Chapter: Sendable, Equatable, CustomStringConvertible {
    /// `02-CompletionPorts`
    let folder: String
    /// `02-completion-ports`: what the reader types, and the tutorial's name. Nil if the manifest lacks it.
    let product: String?

    /// `02`
    var number: String { String(folder.prefix(2)) }
    /// `CompletionPorts`
    var module: String { String(folder.dropFirst(3)) }
    /// `I2.`, the beginning of each of its invariants' names.
    var invariantPrefix: String { "I\(Int(number) ?? 0)." }
    var tutorial: String { "Tutorials/\(product ?? folder).md" }
    var description: String { "chapter \(number)" }
}

extension Project {
    /// The chapters with a folder under `Sources/`, in order. One that is only announced is passed over.
    var chapters: [Chapter] {
        let folders = Set(below("Sources").map { String($0.split(separator: "/")[1]) })
        let products = manifest
        return folders.filter(Chapter.isFolder).sorted().map { folder in
            Chapter(folder: folder, product: products.first { $0.folder == folder }?.product)
        }
    }

    /// The chapters in the manifest that have no folder yet. Links to them are passed over.
    var announced: [Chapter] {
        let begun = chapters.map(\.folder)
        return manifest.filter { !begun.contains($0.folder) }
    }

    /// The manifest's list of chapters.
    var manifest: [Chapter] {
        guard let text = files["Package.swift"] else { return [] }
        return text.components(separatedBy: "folder: \"").dropFirst().map { piece in
            let folder = String(piece.prefix { $0 != "\"" })
            let product = piece.components(separatedBy: "product: \"").dropFirst().first.map {
                String($0.prefix { $0 != "\"" })
            }
            return Chapter(folder: folder, product: product)
        }
    }
}

extension Chapter {
    /// Two digits, a hyphen, a capital: `02-CompletionPorts`.
    static func isFolder(_ name: String) -> Bool {
        let characters = Array(name)
        return characters.count > 3 && characters[0].isNumber && characters[1].isNumber
            && characters[2] == "-" && characters[3].isUppercase
    }
}

extension String {
    var lines: [String] {
        split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    var trimmed: String { trimmingCharacters(in: .whitespaces) }

    var isSlug: Bool {
        contains("-") && allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "-") }
            && !hasPrefix("-") && !hasSuffix("-")
    }

    /// Whether a word stands in this text as a whole: `partial-send` does not stand in `no-partial-send`.
    func mentions(_ word: String) -> Bool {
        var rest = self[...]
        func isPart(_ character: Character?) -> Bool {
            character.map { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" } ?? false
        }
        while let found = rest.range(of: word) {
            let before = found.lowerBound == startIndex ? nil : self[index(before: found.lowerBound)]
            let after = found.upperBound == endIndex ? nil : self[found.upperBound]
            if !isPart(before), !isPart(after) { return true }
            rest = self[found.upperBound...]
        }
        return false
    }
}
