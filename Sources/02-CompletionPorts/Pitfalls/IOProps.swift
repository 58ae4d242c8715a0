import CompletionPorts
import Glibc
import Kernel
import Stage

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
