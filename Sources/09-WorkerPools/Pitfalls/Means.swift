import Contexts
import Glibc
import Kernel
import Reordering
import Stage
import WorkerPools

/// A client that speaks in lines, with plain calls.
public final class LineClient: @unchecked Sendable {
    /// The client's end.
    public let socket: Socket
    // One thread at a time.
    private var rest: [UInt8] = []

    /// Connects.
    public init(to address: Address) throws(SystemError) {
        socket = try Socket.connected(to: address)
        try socket.setNoDelay()
    }

    /// A client whose connection stands already.
    public init(_ socket: Socket) { self.socket = socket }

    /// Says a line.
    public func say(_ line: String) throws(SystemError) { try socket.say(line + "\n") }

    /// The next line; nil when none comes in time, or no more at all.
    public func hear(within patience: Duration = Gate.patience) throws(SystemError) -> String? {
        let deadline = Deadline.after(patience)
        while true {
            if let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                defer { rest.removeFirst(end + 1) }
                return String(decoding: rest[..<end], as: UTF8.self)
            }
            guard try take() else {
                if !socket.waits(for: POLLIN, until: deadline) { return nil }
                continue
            }
        }
    }

    /// Takes what is there. False when nothing is, or nothing comes any more.
    private func take() throws(SystemError) -> Bool {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4_096, alignment: 1)
        defer { memory.deallocate() }
        guard let count = try socket.receiveNow(into: memory) else { return false }
        if count == 0 { throw SystemError(ECONNRESET, attempted: "hear a line") }
        rest += memory[..<count]
        return true
    }

    /// Says a line, and hears the answer; nil when none comes in time.
    public func ask(_ line: String, within patience: Duration = Gate.patience) throws(SystemError) -> String?
    {
        try say(line)
        return try hear(within: patience)
    }

    /// Sends lines, and takes answers in between, until all have been answered: so no side waits for the other one.
    ///
    /// - Returns: The answers so far, when they are enough or the time is over.
    public func exchange(_ lines: [String], within patience: Duration = Gate.patience) throws(SystemError)
        -> [String]
    {
        let bytes = lines.flatMap { Array(($0 + "\n").utf8) }
        var sent = 0
        var answers: [String] = []
        let deadline = Deadline.after(patience)
        while answers.count < lines.count, !deadline.hasPassed {
            if sent < bytes.count {
                let count = bytes.withUnsafeBytes { bytes in
                    Result { () throws(SystemError) in
                        try socket.sendNow(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
                    }
                }
                sent += try count.get() ?? 0
            }
            while let answer = try hear(within: sent < bytes.count ? .zero : .milliseconds(20)) {
                answers.append(answer)
            }
        }
        return answers
    }
}

/// Sends lines until the system takes no more, without reading an answer.
///
/// - Returns: How many bytes of them it has taken.
func push(_ line: String, times: Int, to socket: Socket) throws(SystemError) -> Int {
    let bytes = (0..<times).flatMap { _ in Array((line + "\n").utf8) }
    var sent = 0
    while sent < bytes.count {
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(SystemError) in
                try socket.sendNow(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
            }
        }
        guard let more = try result.get() else {
            // Perhaps the other side has just not come to it.
            if socket.waits(for: POLLOUT, until: .after(.seconds(1))) { continue }
            return sent
        }
        sent += more
    }
    return sent
}

/// A server for a scenario.
public func makeServer(
    _ driver: DriverKind, ioWorkers: Int = 1, logicalWorkers: Int = 1,
    _ configure: (inout JobServer.Options) -> Void = { _ in }
) throws(SystemError) -> JobServer {
    var options = JobServer.Options()
    options.streams.workers = ioWorkers
    options.streams.concurrency = ioWorkers
    options.streams.port.driver = driver
    options.logicalWorkers = logicalWorkers
    configure(&options)
    return try JobServer(options)
}

/// Both ends of a pipe, for what several threads write at once.
final class Pipe: Sendable {
    private let ends: (read: Int32, write: Int32)

    init() throws(SystemError) {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw SystemError(errno, attempted: "make a pipe") }
        self.ends = (ends[0], ends[1])
    }

    deinit {
        close(ends.read)
        close(ends.write)
    }

    func write(_ text: String) { _ = text.withCString { Glibc.write(ends.write, $0, strlen($0)) } }

    /// What is in it. Only while something is.
    func read() -> String {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = Glibc.read(ends.read, &bytes, bytes.count)
        return String(decoding: bytes[..<max(0, count)], as: UTF8.self)
    }
}
