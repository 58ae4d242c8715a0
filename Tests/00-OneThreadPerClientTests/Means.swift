import CKernel
import Glibc
import Kernel
import OneThreadPerClient
import OneThreadPerClientPitfalls
import Stage
import Testing

/// A long stream of bytes to an echo server, by a client that reads only when it is told to.
final class Stream: @unchecked Sendable {
    private let caller: Caller
    private let bytes: Int
    private var sent = 0
    /// Bytes that have come back, and how many pieces of them were not what they should be.
    private(set) var received = 0
    private(set) var differences = 0
    /// Whether the server stopped taking bytes before all were sent.
    private(set) var wasStuck = false
    private let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)

    init(to address: Address, bytes: Int) throws(SystemError) {
        self.bytes = bytes
        caller = try Caller(to: address)
        try caller.socket.setBufferSizes(receive: 262_144)
    }

    deinit { chunk.deallocate() }

    /// The stream repeats 0 to 250. That is no power of two, so that a lost or doubled piece shows.
    private static let pattern = (0..<66_000).map { UInt8($0 % 251) }

    /// What the stream has at a place, and from there on.
    private static func bytes(at place: Int, _ count: Int) -> ArraySlice<UInt8> {
        pattern[(place % 251)..<(place % 251) + count]
    }

    /// Sends until nothing more is taken.
    func sendUntilStuck() throws(SystemError) {
        while sent < bytes {
            if try sendSome() { continue }
            if !wait(for: POLLOUT, milliseconds: 300) {
                wasStuck = true
                return
            }
        }
    }

    /// Sends the rest, and reads everything.
    func finish() throws(SystemError) {
        var hasShutDown = false
        while received < bytes {
            if sent < bytes {
                _ = try sendSome()
            } else if !hasShutDown {
                hasShutDown = true
                try caller.socket.shutDownSending()
            }
            guard let count = try caller.socket.receiveNow(into: chunk) else {
                guard wait(for: sent < bytes ? POLLIN | POLLOUT : POLLIN, milliseconds: 10_000) else {
                    return
                }
                continue
            }
            if count == 0 { return }
            let isSame = Self.bytes(at: received, count).withUnsafeBufferPointer {
                memcmp($0.baseAddress!, chunk.baseAddress!, count) == 0
            }
            if !isSame { differences += 1 }
            received += count
        }
    }

    private func sendSome() throws(SystemError) -> Bool {
        let count = min(chunk.count, bytes - sent)
        let taken = try Self.bytes(at: sent, count).withUnsafeBufferPointer { bytes throws(SystemError) in
            try caller.socket.sendNow(UnsafeRawBufferPointer(bytes))
        }
        guard let taken else { return false }
        sent += taken
        return true
    }

    private func wait(for events: Int32, milliseconds: Int32) -> Bool {
        var wish = pollfd(fd: caller.socket.descriptor, events: Int16(events), revents: 0)
        return poll(&wish, 1, milliseconds) > 0
    }
}

/// What a process holds and has to give back.
struct Belongings {
    let threads = Resources.threads
    let descriptors = Resources.openDescriptors

    /// How much more of anything this is than another.
    func exceeds(_ other: Belongings) -> Int {
        max(threads - other.threads, descriptors - other.descriptors)
    }
}

/// Takes every descriptor that this process may still have.
func takeAllDescriptors() -> [Int32] {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = 256
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    var taken: [Int32] = []
    while true {
        let descriptor = dup(STDERR_FILENO)
        if descriptor < 0 { return taken }
        taken.append(descriptor)
    }
}

/// Connects a caller that has a descriptor already.
func connect(_ caller: Caller, to address: Address) throws(SystemError) {
    let operation = Overlapped()
    try caller.socket.connect(operation, to: address)
    _ = operation.wait(until: .after(.seconds(10)))
    if let error = operation.error { throw error }
}

/// Whether the server resets a new connection, rather than answering or ending it.
func isReset(by address: Address) -> Bool {
    do throws(SystemError) {
        _ = try Caller(to: address).hear(1)
        return false
    } catch {
        return error.code == ECONNRESET
    }
}

/// A server by its words, for a process of a test's own.
func variant(_ kind: String, _ driver: String) throws -> Variant {
    Variant(
        kind: try #require(ServerKind(rawValue: kind)), driver: try #require(DriverKind(rawValue: driver)))
}
