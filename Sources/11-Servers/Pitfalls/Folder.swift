import FileTransfer
import Glibc
import Kernel
import Stage

/// A folder in `/tmp` with one for each of two sides. It goes with `remove`.
public final class Folder: Sendable {
    private static let sides = ["server", "client"]
    private let path: String

    /// Makes it.
    public init() throws(SystemError) {
        var template = Array("/tmp/servers-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else {
            throw SystemError(errno, attempted: "make a folder in /tmp")
        }
        path = String(cString: made)
        for side in Folder.sides { mkdir("\(path)/\(side)", 0o700) }
    }

    /// A side's folder, for its files; one that arrives takes the place of its namesake.
    public func options(_ side: String) -> TransferOptions {
        var options = TransferOptions(folder: "\(path)/\(side)")
        options.replaces = true
        return options
    }

    /// So many bytes, which are not all the same.
    static func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    }

    /// A file of so many bytes.
    ///
    /// - Returns: Its path.
    public func make(_ side: String, _ name: String, _ count: Int) throws(SystemError) -> String {
        let file = "\(path)/\(side)/\(name)"
        try write(Folder.bytes(count), to: file)
        return file
    }

    private func write(_ bytes: [UInt8], to file: String) throws(SystemError) {
        guard let stream = fopen(file, "we") else { throw SystemError(errno, attempted: "write \(file)") }
        defer { fclose(stream) }
        fwrite(bytes, 1, bytes.count, stream)
    }

    /// Whether a side has a file of exactly these bytes. Then it is taken away.
    func takes(_ side: String, _ name: String, _ wanted: [UInt8]) -> Bool {
        let file = "\(path)/\(side)/\(name)"
        guard let stream = fopen(file, "re") else { return false }
        defer {
            fclose(stream)
            unlink(file)
        }
        var bytes = [UInt8](repeating: 0, count: wanted.count + 1)
        return fread(&bytes, 1, bytes.count, stream) == wanted.count && bytes.dropLast() == wanted[...]
    }

    /// What a side has.
    func names(_ side: String) -> [String] {
        guard let directory = opendir("\(path)/\(side)") else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { names.append(String(cString: $0)) }
            }
        }
        return names.filter { $0 != "." && $0 != ".." }.sorted()
    }

    /// Removes it, with everything in it.
    public func remove() {
        for side in Folder.sides {
            for name in names(side) { unlink("\(path)/\(side)/\(name)") }
            rmdir("\(path)/\(side)")
        }
        rmdir(path)
    }
}
