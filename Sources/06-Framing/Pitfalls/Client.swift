import Framing
import Glibc
import Kernel
import Reordering
import Stage

/// A client of the tests and demonstrations: plain calls, each with a bound in time.
public struct Client: Sendable {
    /// Its connection.
    public let socket: Socket

    /// Connects.
    public init(to address: Address) throws(SystemError) {
        socket = try Socket.connected(to: address)
        try socket.setNoDelay()
    }

    /// Sends bytes, all of them, however often it has to.
    public func send(_ bytes: [UInt8]) throws(SystemError) {
        var sent = 0
        while sent < bytes.count {
            sent += try part(of: bytes, from: sent) ?? 0
            if sent < bytes.count { try wait(Int16(POLLOUT)) }
        }
    }

    /// Takes bytes until there are `count`, or the stream ends.
    public func receive(_ count: Int = .max) throws(SystemError) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            guard let more = try some(upTo: count - bytes.count) else {
                try wait(Int16(POLLIN))
                continue
            }
            if more.isEmpty { break }
            bytes += more
        }
        return bytes
    }

    /// Sends, and reads nothing until the system has taken no byte for a while; then reads and sends until all has come
    /// back. Returns what came, and how many bytes were sent before the first was read.
    public func sendBeforeReading(_ bytes: [UInt8]) throws(SystemError) -> ([UInt8], before: Int) {
        var sent = 0
        while sent < bytes.count {
            if let count = try part(of: bytes, from: sent) {
                sent += count
                continue
            }
            var wish = pollfd(fd: socket.descriptor, events: Int16(POLLOUT), revents: 0)
            if poll(&wish, 1, 200) == 0 { break }
        }
        let before = sent
        var heard: [UInt8] = []
        heard.reserveCapacity(bytes.count)
        while heard.count < bytes.count {
            let offered = sent < bytes.count ? try part(of: bytes, from: sent) : nil
            sent += offered ?? 0
            let more = try some(upTo: bytes.count - heard.count)
            if let more, more.isEmpty { break }
            heard += more ?? []
            if offered == nil, more == nil {
                try wait(Int16(POLLIN) | (sent < bytes.count ? Int16(POLLOUT) : 0))
            }
        }
        return (heard, before)
    }

    private func part(of bytes: [UInt8], from start: Int) throws(SystemError) -> Int? {
        let result = bytes.withUnsafeBytes { memory in
            Result { () throws(SystemError) in
                try socket.sendNow(UnsafeRawBufferPointer(rebasing: memory[start...]))
            }
        }
        return try result.get()
    }

    private func some(upTo count: Int) throws(SystemError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: min(count, 65_536))
        let result = bytes.withUnsafeMutableBytes { memory in
            Result { () throws(SystemError) in try socket.receiveNow(into: memory) }
        }
        guard let received = try result.get() else { return nil }
        bytes.removeLast(bytes.count - received)
        return bytes
    }

    private func wait(_ events: Int16) throws(SystemError) {
        var wish = pollfd(fd: socket.descriptor, events: events, revents: 0)
        if poll(&wish, 1, Int32(clamping: Int(Gate.patience / .milliseconds(1)))) == 0 {
            throw SystemError(ETIMEDOUT, attempted: "wait for the server")
        }
    }
}

extension StreamHub.Options {
    /// The choices of most scenarios.
    public static func on(_ driver: DriverKind, workers: Int = 1, reads: Int = 1, chunk: Int = 4096)
        -> StreamHub.Options
    {
        var options = StreamHub.Options()
        options.port.driver = driver
        options.workers = workers
        options.concurrency = workers
        options.pendingReads = reads
        options.chunkCapacity = chunk
        options.maximumReadSize = chunk
        return options
    }
}
