import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: each thread sends its message with the socket's own call, and tries again with the rest.
struct BrokenSharedSocket: Sendable {
    let socket: Socket

    func send(_ bytes: [UInt8], whenCut: () -> Void) throws(SystemError) {
        let result = bytes.withUnsafeBytes { memory in
            Result { () throws(SystemError) in try socket.sendNow(memory) }
        }
        let sent = try result.get() ?? 0
        guard sent < bytes.count else { return }
        whenCut()
        try socket.say(Array(bytes[sent...]))
    }
}

/// Two threads send on one connection, and one message lands in the middle of the other.
public enum SendsInterleave {
    private static let size = 1 << 20
    private static let other: [UInt8] = Array("HELLO".utf8)

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "sends-interleave",
        title: "two threads send on one connection, and one message lands in the middle of the other",
        broken: { _ in
            let pair = try Pair()
            try pair.server.setBufferSizes(send: 4_096)
            let shared = BrokenSharedSocket(socket: pair.server)
            let (isCut, isSaid) = (Gate(), Gate())
            let large = startThread("large message") {
                try? shared.send([UInt8](repeating: UInt8(ascii: "a"), count: size)) {
                    isCut.open()
                    isSaid.pass()
                }
            }
            let small = startThread("small message") {
                isCut.pass()
                // It is sent as soon as the reader has made room, and before the rest of the other.
                try? shared.socket.say(other)
                isSaid.open()
            }
            let heard = try pair.client.hearBytes(size + other.count)
            for thread in [large, small] { thread.join() }
            return observe(heard, isBroken: true)
        },
        fixed: { driver in
            let pair = try Pair()
            try pair.server.setBufferSizes(send: 4_096)
            // The large message needs many chunks.
            let hub = try makeHub(driver, reads: 1, capacity: 65_536)
            let connection = try hub.adopt(pair.server, handler: Sink())
            let isSent = Gate()
            let large = startThread("large message") {
                try? connection.send([UInt8](repeating: UInt8(ascii: "a"), count: size))
                isSent.open()
            }
            let small = startThread("small message") {
                isSent.pass()
                try? connection.send(other)
            }
            for thread in [large, small] { thread.join() }
            let heard = try pair.client.hearBytes(size + other.count)
            var observation = observe(heard, isBroken: false)
            if !hub.stop() { observation.happened = true }
            return observation
        })

    private static func observe(_ heard: [UInt8], isBroken: Bool) -> Observation {
        let place = heard.firstIndex(of: other[0]) ?? heard.count
        let isWhole = heard.count == size + other.count
        let isApart = place == size
        return Observation(
            happened: isBroken ? isWhole && !isApart : !isWhole || !isApart,
            lines: [
                "one thread sends \(readable(size)) letters a, another one says HELLO",
                "HELLO came behind \(readable(place)) of them",
            ])
    }
}
