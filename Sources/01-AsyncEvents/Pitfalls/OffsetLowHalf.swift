import AsyncEvents
import Kernel
import Stage

/// A file of 4 GiB and 20 bytes, a hole except for its last 20 bytes, is read at its end.
enum OffsetLowHalf {
    static let pitfall = Pitfall(
        slug: "offset-low-half",
        title:
            "only the low half of size and offset is used, and a file beyond 4 GiB is read at the wrong place",
        broken: { try broken($0) }, fixed: { try fixed($0) })

    private static let end = "the end of this file"

    private static func content() throws -> Scratch {
        let scratch = try Scratch()
        try scratch.put(Array(end.utf8), at: 1 << 32)
        return scratch
    }

    static func broken(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try content()
        let reader = BrokenLowHalf(try stand.file(scratch.path))
        let found = try reader.readLast(20)
        return Observation(
            happened: reader.size == 20 && found != end,
            lines: [
                "size of the file: \(try File(scratch.path).size) bytes; low half of it: \(reader.size)",
                "its last 20 bytes, read at the low half of the offset: \"\(found)\"",
            ])
    }

    static func fixed(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try content()
        let file = try stand.file(scratch.path)
        var found = ""
        let count = try FileReader(file).read(from: try file.size - 20) { bytes, _ in
            found = String(decoding: bytes, as: UTF8.self)
        }
        return Observation(
            happened: found != end || count != 20,
            lines: [
                "size of the file: \(try file.size) bytes",
                "its last \(count) bytes: \"\(found)\"",
            ])
    }
}

/// Reads as if a file ended at 4 GiB: `liFileSize.LowPart`, and `Offset` without `OffsetHigh`.
struct BrokenLowHalf {
    let file: File
    let size: UInt32

    init(_ file: File) {
        self.file = file
        size = UInt32(truncatingIfNeeded: (try? file.size) ?? 0)
    }

    func readLast(_ count: UInt32) throws -> String {
        let operation = Stand.operation()
        let memory = Memory(Int(count))
        operation.offset = Int64(size - count)
        try file.read(operation, into: memory.bytes)
        let bytes = try operation.result(waiting: true, until: .after(Gate.patience))
        return memory.text(bytes)
    }
}
