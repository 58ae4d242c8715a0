import Framing
import Glibc
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: believes every length. It counts its header, has a sign, and is used for a place and a size.
final class BrokenLengthReader: StreamHandler, @unchecked Sendable {
    private let heard: Heard
    // In the handler's calls only.
    private var bytes: [UInt8] = []
    private static let bound = 100_000

    init(_ heard: Heard) { self.heard = heard }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        bytes += chunk.contents
        var place = 0
        var found = 0
        while bytes.count - place >= 4 {
            let length = Int32(truncatingIfNeeded: Array(bytes[place...]).length)
            found += 1
            if found == BrokenLengthReader.bound {
                heard.say("\(readable(found)) messages found in \(bytes.count) bytes, and it would go on")
                return connection.close()
            }
            if length != 0 {
                // As in C: what falls below zero is very large.
                let size = Int(UInt32(bitPattern: length &- 4))
                // The system gives addresses that no memory is behind yet: so this even works, for a while.
                let message = malloc(size)
                defer { free(message) }
                if size > bytes.count {
                    heard.say("\(readable(size)) bytes \(message == nil ? "wanted" : "allocated")")
                    return connection.close()
                }
                heard.add(Array(bytes[place + 4..<place + 4 + size]))
            }
            place += Int(length)
        }
        bytes.removeFirst(place)
    }
}

/// A good message, and behind it a length that is a lie.
public enum LengthLies {
    private static let lies = [0, 2, -1, Int(Int32.max)]
    private static let codec = LengthPrefixed(.four, .littleEndian, countsHeader: true, maximumLength: 8188)
    private static let good = frame(length: 8) + Array("good".utf8)

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "length-lies",
        title:
            "a length of 0, smaller than its header, negative or huge: a loop without end, gigabytes allocated",
        broken: { driver in
            var harmed = 0
            var lines: [String] = []
            for lie in lies {
                let heard = Heard()
                try play([good + frame(length: lie)], to: .on(driver)) { BrokenLengthReader(heard) }
                harmed += heard.verdicts.isEmpty ? 0 : 1
                lines.append("a length of \(lie): \(heard.verdicts.joined())")
            }
            return Observation(happened: harmed == lies.count, lines: lines)
        },
        fixed: { driver in
            var refused = 0
            var lines: [String] = []
            for lie in lies {
                let heard = Heard()
                try play([good + frame(length: lie)], to: .on(driver)) {
                    FramedConnection(codec, handler: Collector(heard))
                }
                let isRefused =
                    heard.shown == ["good"] && heard.error?.offset == good.count
                    && heard.verdicts == ["0 bytes allocated"]
                refused += isRefused ? 1 : 0
                lines.append(
                    "a length of \(lie): \(heard.error?.description ?? "believed"); "
                        + "delivered before it: \(heard.shown), \(heard.verdicts.joined())")
            }
            return Observation(happened: refused != lies.count, lines: lines)
        })
}
