import Kernel
import Stage
import ThreadPoolIO

/// A line is longer than the buffer that it is copied into.
public enum MessageLongerThanBuffer {
    static let slug = "message-longer-than-buffer"

    /// For the demo and the tests. The broken half runs in a child process, which it kills.
    public static let pitfall = Pitfall(
        slug: slug,
        title: "a line is copied into a buffer that is a byte shorter",
        broken: { driver in try ownProcess.dies(slug, driver) },
        fixed: { driver in
            var options = PoolServer.Options()
            options.pool.port.driver = driver
            let (lines, refusals) = (Counter(), Counter())
            let server = try PoolServer(options: options) { report in
                switch report {
                case .line(let line, _): lines.add(line.count)
                case .tooLong: refusals.add()
                default: break
                }
            }
            let longest = options.maximumLine
            let client = try Socket.connected(to: server.address)
            try client.say([UInt8](repeating: UInt8(ascii: "x"), count: longest) + [UInt8(ascii: "\n")])
            let isTaken = eventually { lines.value == longest }
            try client.say([UInt8](repeating: UInt8(ascii: "x"), count: longest + 1))
            let words = "a line has at most \(longest) bytes"
            let heard = try client.hear(words.utf8.count)
            client.close()
            try server.stop()
            return Observation(
                happened: !isTaken || heard != words || refusals.value != 1 || lines.value != longest,
                lines: [
                    "a line of \(longest) bytes was taken, to the last byte",
                    "one of \(longest + 1) was refused, and its client heard: \(heard)",
                ])
        })

    /// Copies a line that is a byte too long. The process does not survive that.
    public static func crash(_ driver: DriverKind) throws {
        var request = try BrokenSend()
        request.put([UInt8](repeating: UInt8(ascii: "x"), count: 2_043))
        OwnProcess.say("a line of 2,043 bytes lies in a buffer of 2,043")
        OwnProcess.say(OwnProcess.lastWords)
        request.put([UInt8](repeating: UInt8(ascii: "x"), count: 2_044))
    }

    /// ⚠︎ Broken on purpose: the length of what is copied is what was typed, not what there is room for.
    private struct BrokenSend {
        // Up against a page that must not be touched: the first byte too many is seen.
        private let buffer: GuardedMemory
        private var count = 0

        init() throws(SystemError) { buffer = try GuardedMemory(2_043) }

        mutating func put(_ line: [UInt8]) {
            line.withUnsafeBytes { typed in
                buffer.bytes.baseAddress!.copyMemory(from: typed.baseAddress!, byteCount: typed.count)
            }
            count = line.count
        }
    }
}
