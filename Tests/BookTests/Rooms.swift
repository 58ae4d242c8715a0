/// A room of Kernel: files that belong together, and the rooms whose names they may use.
private struct Room {
    let name: String
    let files: Set<String>
    let knows: Set<String>
}

/// Four rooms. What the system gives knows nobody. An operation and a handle know each other, and the driver that they are
/// in, but none of the kinds of driver, nor what these are made of. The drivers know all.
private let rooms = [
    Room(
        name: "System",
        files: [
            "Address", "AddressRange", "BufferMemory", "CircularQueue", "Deadline", "Lock",
            "MachineAddresses",
            "SystemError", "Thread",
        ], knows: []),
    Room(
        name: "Operations",
        files: [
            "Accept", "Attempt", "Between", "CompletionTarget", "Connect", "Disconnect", "Overlapped",
            "ReadWrite",
            "Receive", "Send", "Transmit",
        ], knows: ["System", "Handles"]),
    Room(
        name: "Handles",
        files: [
            "Closing", "File", "Handle", "HandleState", "Lane", "PlainCalls", "Reassociation", "Socket",
            "SocketFilter",
        ], knows: ["System", "Operations"]),
    Room(
        name: "Drivers",
        files: [
            "Caretaker", "Driver", "DriverKind", "EpollDriver", "FileHelpers", "FileOperations",
            "Interruption",
            "Poller", "Results", "Ring", "URingDriver", "Walking",
        ], knows: ["System", "Operations", "Handles"]),
]

/// Names that a room may use beside those of the rooms that it knows.
private let lent = ["Handles": Set(["Driver"]), "Operations": Set(["Driver"])]

/// Kernel's files name only what their room may know.
func checkRooms(_ project: Project) -> [String] {
    let folder = "Sources/Kernel/"
    var complaints: [String] = []
    var room: [String: Room] = [:]
    var home: [String: Room] = [:]
    for path in project.swift(below: "Sources/Kernel") {
        let file = String(path.dropFirst(folder.count).dropLast(".swift".count))
        guard let found = rooms.first(where: { $0.files.contains(file) }) else {
            complaints.append("\(path): belongs to no room; Tests/BookTests/Rooms.swift has the table")
            continue
        }
        room[path] = found
        // What is declared within another type has its name.
        for line in (project.files[path] ?? "").lines where !line.hasPrefix(" ") {
            if let type = declaredType(line) { home[type] = found }
        }
    }
    for (path, own) in room {
        let words = Set(
            code(of: path, project).flatMap { $0.split { !$0.isLetter && !$0.isNumber && $0 != "_" } }
                .map(String.init))
        for word in words.sorted() {
            guard let other = home[word], other.name != own.name, !own.knows.contains(other.name),
                lent[own.name]?.contains(word) != true
            else { continue }
            complaints.append("\(path): names \(word); \(own.name) may not know \(other.name)")
        }
    }
    return complaints
}

private func code(of path: String, _ project: Project) -> [String] {
    (project.files[path] ?? "").lines.map(\.trimmed).filter { !$0.hasPrefix("//") }
}

/// The type that a line declares at the start, as far as it has a name of its own.
private func declaredType(_ line: String) -> String? {
    let words = line.split(separator: " ")
    let kinds: Set<Substring> = ["class", "struct", "enum", "protocol", "typealias", "actor"]
    let before: Set<Substring> = ["public", "package", "open", "final", "private", "fileprivate", "indirect"]
    guard let place = words.firstIndex(where: { kinds.contains($0) }), place + 1 < words.count,
        words[..<place].allSatisfy({ before.contains($0) || $0.hasPrefix("@") })
    else { return nil }
    return String(words[place + 1].prefix { $0.isLetter || $0.isNumber || $0 == "_" })
}
