/// Kernel's rooms, a folder each, from the ground up. A file names what its own room and the rooms below it declare, and
/// nothing that a room above declares.
private let rooms = ["System", "Handles", "Operations", "Drivers"]

/// `Driver` is declared in the handles' room, for that is what a handle knows of a driver. These functions of it are written
/// in the room above, where the way of an operation is.
private let writtenAbove: Set = ["beginAndUnlock", "tryHeadAndUnlock", "help", "takeCare"]

/// Every file of Kernel lies in a room, and names only what that room may know.
func checkRooms(_ project: Project) -> [String] {
    var complaints: [String] = []
    var files: [(path: String, room: Int, code: [String])] = []
    for path in project.swift(below: "Sources/Kernel") {
        let folders = path.split(separator: "/").dropFirst(2).dropLast()
        guard folders.count == 1, let room = folders.first.flatMap({ rooms.firstIndex(of: String($0)) })
        else {
            complaints.append("\(path): lies in none of Kernel's rooms (\(rooms.joined(separator: ", ")))")
            continue
        }
        let lines = (project.files[path] ?? "").lines.filter { !$0.trimmed.hasPrefix("//") }
        files.append((path, room, lines))
    }
    let inOrder = files.sorted { $0.room < $1.room }
    // The lowest room that declares a type; and what is declared anywhere, by its name.
    var types: [String: Int] = [:]
    var members: [String: Int] = [:]
    for file in inOrder {
        for line in file.code {
            if !line.hasPrefix(" "), let type = declared(in: line, [typeWords]), types[type] == nil {
                types[type] = file.room
            }
            if let member = declared(in: line, [typeWords, memberWords]), members[member] == nil {
                members[member] = file.room
            }
        }
    }
    // Functions that a room adds to a type of a room below.
    var added: [(function: String, room: Int, type: Int)] = []
    for file in inOrder {
        var extended: Int?
        for line in file.code {
            if !line.hasPrefix(" ") { extended = declared(in: line, [["extension"]]).flatMap { types[$0] } }
            if let extended, extended < file.room, let function = declared(in: line, [["func"]]) {
                added.append((function, file.room, extended))
            }
        }
    }
    for file in files {
        let words = Set(file.code.flatMap(names))
        var found: [(String, Int)] = []
        for name in words { if let room = types[name], room > file.room { found.append((name, room)) } }
        for (function, room, type) in added
        where room > file.room && type <= file.room && words.contains(function)
            && members[function]! > file.room && !writtenAbove.contains(function)
        {
            found.append((function, room))
        }
        complaints += found.sorted { $0 < $1 }.map {
            "\(file.path): names \($0); \(rooms[file.room]) may not know \(rooms[$1])"
        }
    }
    return complaints
}

private let typeWords: Set<Substring> = ["class", "struct", "enum", "protocol", "typealias", "actor"]
private let memberWords: Set<Substring> = ["func", "var", "let", "case"]

/// What a line declares with one of these words.
private func declared(in line: String, _ kinds: [Set<Substring>]) -> String? {
    let words = line.split(separator: " ")
    guard let place = words.firstIndex(where: { word in kinds.contains { $0.contains(word) } }),
        place + 1 < words.count
    else { return nil }
    let name = words[place + 1].prefix { $0.isLetter || $0.isNumber || $0 == "_" }
    return name.isEmpty ? nil : String(name)
}

/// The words of a line, without those of its texts.
private func names(in line: String) -> [String] {
    line.split(separator: "\"", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 0 }
        .flatMap { $0.element.split { !$0.isLetter && !$0.isNumber && $0 != "_" } }.map(String.init)
}
