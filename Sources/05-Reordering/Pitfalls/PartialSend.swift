import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: what the system did not take is forgotten.
struct BrokenSender {
    let socket: Socket

    func send(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { _ = try socket.sendNow($0) }
    }
}

/// A non-blocking send takes a part, and the rest is dropped.
public enum PartialSend {
    private static let size = 1 << 20

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "partial-send",
        title: "the socket's own send takes a part of the bytes, and the rest is never sent",
        broken: { _ in
            let pair = try pairWithLittleRoom()
            let sender = BrokenSender(socket: pair.server)
            try sender.send([UInt8](repeating: 1, count: size))
            try pair.server.shutDownSending()
            let heard = try pair.client.hearBytes(size + 1)
            return Observation(
                happened: heard.count < size,
                lines: [
                    "sent:     \(readable(size)) bytes",
                    "received: \(readable(heard.count)) bytes, and then the end",
                ])
        },
        fixed: { driver in
            let pair = try pairWithLittleRoom()
            // One chunk is enough for all of it: the system sends it in as many pieces as it likes.
            let hub = try makeHub(driver, reads: 1, capacity: size)
            let connection = try hub.adopt(pair.server, handler: Sink())
            try connection.send([UInt8](repeating: 1, count: size))
            try connection.send([2])
            connection.finish()
            // A slow reader: a little at a time.
            var heard: [UInt8] = []
            var pieces = 0
            while heard.count <= size {
                let piece = try pair.client.hearBytes(min(100_000, size + 1 - heard.count))
                if piece.isEmpty { break }
                heard += piece
                pieces += 1
            }
            let isRight =
                heard.count == size + 1 && heard.last == 2 && heard.dropLast().allSatisfy { $0 == 1 }
            pair.client.close()
            let isClean = hub.stop()
            return Observation(
                happened: !isRight || !isClean,
                lines: [
                    "sent:     \(readable(size)) bytes, and one more behind them",
                    "received: \(readable(heard.count)) bytes in \(pieces) pieces, the one behind them "
                        + (heard.last == 2 ? "last" : "elsewhere"),
                ])
        })

    private static func pairWithLittleRoom() throws(SystemError) -> Pair {
        let pair = try Pair()
        try pair.server.setBufferSizes(send: 4_096)
        return pair
    }
}
