import AsyncEvents
import Glibc
import Kernel
import Stage

/// Files whose last block is shorter than the others, and files that change while they are read.
enum ShortLastRead {
    static let pitfall = Pitfall(
        slug: "short-last-read",
        title:
            "blocks are counted instead of bytes: bytes are invented, lost, or read past the end of the memory",
        broken: { try broken($0) }, fixed: { try fixed($0) })

    static let blockSize = 256

    static func broken(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let odd = try Scratch(size: 3 * blockSize + 1)
        let counted = try BrokenBlockCounter(stand.file(odd.path)).read {}

        let growing = try Scratch(size: 300)
        let grown = try BrokenBlockCounter(stand.file(growing.path)).read {
            try growing.put(Scratch.pattern(300..<600), at: 300)
        }
        let shrinking = try Scratch(size: 1_000)
        let shrunk = try BrokenBlockCounter(stand.file(shrinking.path)).read { try shrinking.setSize(300) }
        return Observation(
            happened: counted.counted != 3 * blockSize + 1 && grown.beyond > 0 && shrunk.gaveUp,
            lines: [
                "a file of \(3 * blockSize + 1) bytes: \(counted.counted) bytes were counted",
                "a file of 300 bytes that grew: \(grown.beyond) bytes written past the end of the memory",
                "a file of 1000 bytes that shrank to 300: still reading after \(shrunk.completions) completions",
            ])
    }

    static func fixed(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        var wrong = 0
        var sizes = 0
        for size in 0...3 * blockSize + 1 {
            sizes += 1
            if try !readsBack(size, stand) { wrong += 1 }
        }
        let growing = try Scratch(size: 300)
        let grown = failure(of: try stand.file(growing.path)) {
            try? growing.put(Scratch.pattern(300..<600), at: 300)
        }
        let shrinking = try Scratch(size: 40 * blockSize)
        let shrunk = failure(of: try stand.file(shrinking.path)) { try? shrinking.setSize(300) }
        return Observation(
            happened: wrong > 0 || grown != .grew(path: growing.path, expected: 300)
                || shrunk != .shrank(path: shrinking.path, expected: Int64(40 * blockSize), found: 300),
            lines: [
                "files of \(sizes) sizes, 0 to 3 blocks and 1: \(wrong) of them not byte for byte",
                "a file that grew: \(grown.map { reason($0) } ?? "nothing was said")",
                "a file that shrank: \(shrunk.map { reason($0) } ?? "nothing was said")",
            ])
    }

    static func readsBack(_ size: Int, _ stand: Stand) throws -> Bool {
        let scratch = try Scratch(size: size)
        var found = [UInt8](repeating: 0, count: size)
        var seen = 0
        let count = try FileReader(stand.file(scratch.path), blockSize: blockSize).read { bytes, offset in
            seen += bytes.count
            found.replaceSubrange(Int(offset)..<Int(offset) + bytes.count, with: bytes)
        }
        return count == size && seen == size && found == Scratch.pattern(0..<Int64(size))
    }

    /// What a reader says of a file that is changed when its first block has come.
    static func failure(of file: File, change: () -> Void) -> FileError? {
        var isChanged = false
        do throws(FileError) {
            try FileReader(file, blockSize: blockSize).read { _, _ in
                if !isChanged { change() }
                isChanged = true
            }
            return nil
        } catch {
            return error
        }
    }

    private static func reason(_ error: FileError) -> String {
        let text = "\(error)"
        return String(text[(text.firstRange(of: ": ")?.upperBound ?? text.startIndex)...])
    }
}
