import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: buffers and operations apart, and a failed connection's buffers go back at once.
final class BrokenBuffers {
    private var free: [UnsafeMutableRawBufferPointer] = []
    private(set) var made = 0

    func take() -> UnsafeMutableRawBufferPointer {
        if let buffer = free.popLast() { return buffer }
        made += 1
        return .allocate(byteCount: 64, alignment: 1)
    }

    func giveBack(_ buffer: UnsafeMutableRawBufferPointer) { free.append(buffer) }
    deinit { for buffer in free { buffer.deallocate() } }
}

/// A buffer is freed while a receive is pending, and the system writes into whatever lives there now.
public enum KernelWritesToNewOwner {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "kernel-writes-to-new-owner",
        title:
            "a buffer is freed while a receive is pending, and the bytes are written over its next owner's",
        broken: { driver in
            let buffers = BrokenBuffers()
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 1)
            let receive = Overlapped()
            let buffer = buffers.take()
            try pair.server.receive(receive, into: buffer)
            // A send on the same connection has failed, and its handler gives everything back.
            buffers.giveBack(buffer)
            // The next owner: an invoice, perhaps.
            let invoice = buffers.take()
            let words = "pay 10"
            Array(words.utf8).withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: invoice[..<6]).copyMemory(from: $0)
            }
            try pair.client.say("pay 99")
            let packet = try port.next()
            let text = String(decoding: invoice[..<6], as: UTF8.self)
            buffers.giveBack(invoice)
            port.close()
            return Observation(
                happened: packet.bytes == 6 && text == "pay 99" && buffers.made == 1,
                lines: [
                    "a receive was pending when its buffer was given back; somebody took it and wrote \"\(words)\"",
                    "then bytes came for the receive; the new owner reads: \"\(text)\"",
                    driver == .ioUring
                        ? "it was the kernel that wrote them"
                        : "it was the driver's receive call that wrote them",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let (pair, next) = (try Pair(), try Pair())
            let connection = try stand.table.admit(pair.server)
            let context = stand.table.contexts
            // It fails, and the client still speaks: the buffer is its operation's own.
            connection.close()
            try? pair.client.say("pay 99")
            let other = context.take()
            _ = Array("pay 10".utf8).withUnsafeBytes { other?.fill($0) }
            try stand.turn()
            let text = other.map { String(decoding: $0.contents(6), as: UTF8.self) }
            if let other { context.giveBack(other) }
            // And while somebody still speaks on a connection that stands.
            try stand.table.admit(next.server)
            try next.client.say("pay 99")
            let isThrough = stand.turns { context.counters.inUse == 1 && next.isAnswered }
            return Observation(
                happened: text != "pay 10" || context.counters.made != 2 || !isThrough || !stand.finish(),
                lines: [
                    "a receive was pending when its connection was closed; its context stayed its own",
                    "contexts made: \(context.counters.made); the new owner reads: \"\(text ?? "")\"",
                ])
        })
}

extension Pair {
    /// Whether the echo of six bytes has come.
    fileprivate var isAnswered: Bool { (try? client.hear(6, within: .milliseconds(1))) == "pay 99" }
}
