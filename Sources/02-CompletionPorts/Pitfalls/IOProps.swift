import CKernel
import CompletionPorts
import Glibc
import Kernel
import Stage

/// Both ends of a TCP connection on the loopback. Neither blocks.
public struct Pair: Sendable {
    /// The end that a port looks after.
    public let server: Socket
    /// The other side.
    public let client: Socket

    /// Connects them, over IPv4 or IPv6.
    public init(_ address: Address = .loopback()) throws(SystemError) {
        let listener = try Socket.listener(on: address)
        client = try Socket.connected(to: try listener.localAddress)
        try listener.setBlocking(true)
        guard let accepted = try listener.acceptNow() else {
            throw SystemError(EAGAIN, attempted: "accept a connection that stands")
        }
        server = accepted
        listener.close()
        try client.setNoDelay()
        try server.setNoDelay()
    }

    /// So many connections.
    public static func several(_ count: Int) throws(SystemError) -> [Pair] {
        var pairs: [Pair] = []
        for _ in 0..<count { pairs.append(try Pair()) }
        return pairs
    }
}

extension Socket {
    /// Sends a short text with a plain call. It fits into an empty socket buffer.
    public func say(_ text: String) throws(SystemError) {
        let bytes = Array(text.utf8)
        var sent: Int?
        var error: SystemError?
        bytes.withUnsafeBytes { memory in
            do throws(SystemError) { sent = try sendNow(memory) } catch let failure { error = failure }
        }
        if let error { throw error }
        guard sent == bytes.count else { throw SystemError(EAGAIN, attempted: "say \(bytes.count) bytes") }
    }

    /// Takes up to `count` bytes with plain calls: fewer only at the end of the stream or when the time is over.
    public func hear(_ count: Int, within patience: Duration = Gate.patience) throws(SystemError) -> String {
        let deadline = Deadline.after(patience)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, count), alignment: 1)
        defer { memory.deallocate() }
        var heard = 0
        while heard < count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: memory[heard..<count])
            if let more = try receiveNow(into: rest) {
                if more == 0 { break }
                heard += more
                continue
            }
            var wish = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let left = Int32(clamping: deadline.remaining / 1_000_000)
            if poll(&wish, 1, left) == 0, deadline.hasPassed || left == 0 { break }
        }
        return String(decoding: memory[..<heard], as: UTF8.self)
    }

    /// Ends the connection with a reset.
    public func abort() throws(SystemError) {
        try setAbortiveClose()
        close()
    }
}

/// An operation with a buffer of its own, which lives as long as the operation.
public final class Request: Overlapped, @unchecked Sendable {
    /// The buffer: the driver's while the request is pending.
    public let memory: UnsafeMutableRawBufferPointer
    /// Says which request this is.
    public let number: Int

    /// An idle request with room for so many bytes.
    public init(_ number: Int = 0, room: Int = 64) {
        self.number = number
        memory = .allocate(byteCount: room, alignment: 16)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// The first bytes of the buffer, as text.
    public func text(_ count: Int) -> String {
        String(decoding: memory[..<min(count, memory.count)], as: UTF8.self)
    }

    deinit { memory.deallocate() }
}

extension CompletionPort {
    /// A port on one driver.
    public static func on(_ driver: DriverKind, concurrency: Int = 1) throws(SystemError) -> CompletionPort {
        var options = Options()
        options.driver = driver
        return try CompletionPort(concurrency: concurrency, options: options)
    }

    /// The next packet, whether it tells of a success or a failure; an error if there is none in bounded time.
    public func next(within patience: Duration = Gate.patience) throws(SystemError) -> Packet {
        switch dequeue(timeout: patience) {
        case .completed(let packet), .failed(let packet, _): return packet
        case .timedOut: throw SystemError(ETIMEDOUT, attempted: "wait for a packet")
        case .closed: throw SystemError.closed("wait for a packet")
        }
    }
}

extension Duration {
    /// In milliseconds, with two places behind the point.
    var inMilliseconds: String {
        let hundredths = Int(self / .microseconds(10))
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest) ms"
    }
}
