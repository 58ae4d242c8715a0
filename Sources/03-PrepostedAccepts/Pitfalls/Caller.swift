import Glibc
import Kernel
import Stage

/// A client as the scenarios need it: it does one thing at a time, and waits for nothing longer than it is told.
public final class Caller: Sendable {
    /// The client's end of the connection.
    public let socket: Socket

    /// How long a client waits for what should not come.
    public static let glance = Duration.milliseconds(250)

    /// Connects, and says nothing yet.
    public init(to server: Address) throws(SystemError) {
        socket = try Socket.connected(to: server)
        try socket.setNoDelay()
    }

    /// So many clients.
    public static func several(_ count: Int, to server: Address) throws(SystemError) -> [Caller] {
        var callers: [Caller] = []
        for _ in 0..<count { callers.append(try Caller(to: server)) }
        return callers
    }

    /// Sends a short text.
    public func say(_ text: String) throws(SystemError) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: text.utf8.count, alignment: 1)
        defer { memory.deallocate() }
        memory.copyBytes(from: text.utf8)
        let sent = try socket.sendNow(.init(memory))
        guard sent == memory.count else { throw SystemError(EAGAIN, attempted: "say \(memory.count) bytes") }
    }

    /// Takes up to `count` bytes: fewer only at the end of the stream, or when the time is over.
    public func hear(_ count: Int, within patience: Duration = Gate.patience) throws(SystemError) -> String {
        let deadline = Deadline.after(patience)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
        defer { memory.deallocate() }
        var heard = 0
        while heard < count {
            let more = try socket.receiveNow(into: .init(rebasing: memory[heard...]))
            if more == 0 { break }
            heard += more ?? 0
            if more == nil, !isReadable(until: deadline) { break }
        }
        return String(decoding: memory[..<heard], as: UTF8.self)
    }

    /// Says something, and whether it comes back in time.
    public func isAnswered(_ text: String, within patience: Duration = Gate.patience) throws(SystemError)
        -> Bool
    {
        do throws(SystemError) {
            try say(text)
            return try hear(text.utf8.count, within: patience) == text
        } catch {
            // A server that closes with this unread ends the connection with a reset.
            guard error.code == ECONNRESET || error.code == EPIPE else { throw error }
            return false
        }
    }

    /// Whether the server ends the connection in time; what it sent before is thrown away.
    public func isEnded(within patience: Duration = Gate.patience) -> Bool {
        let deadline = Deadline.after(patience)
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 1)
        defer { scratch.deallocate() }
        while true {
            do throws(SystemError) {
                let count = try socket.receiveNow(into: scratch)
                if count == 0 { return true }
                if count == nil, !isReadable(until: deadline) { return false }
            } catch {
                return true
            }
        }
    }

    /// Ends the connection with a reset.
    public func reset() throws(SystemError) {
        try socket.setAbortiveClose()
        socket.close()
    }

    private func isReadable(until deadline: Deadline) -> Bool {
        var wish = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&wish, 1, Int32(clamping: deadline.remaining / 1_000_000 + 1)) > 0
    }
}
