import AsyncEvents
import Glibc
import Kernel
import Stage

/// An operation that nobody guards: it can be posted while it is pending, and a post resets nothing.
///
/// `Overlapped` refuses the one and does the other, so the mistakes need a mechanism of their own. On Windows nothing
/// refuses the first. `ReadFile` and its like reset the event of the structure; what hands in a result by itself, as
/// this device does, has to do that by hand.
public final class BrokenOverlapped: @unchecked Sendable {
    private let lock = Lock()
    private var result = 0
    private var completions = 0
    /// The offset in two halves. Setting one of them leaves the other as it was.
    public var offsetLow: UInt32 = 0
    /// The upper half.
    public var offsetHigh: UInt32 = 0
    /// Set at completion. Whoever posts again has to reset it.
    public let event = Event(.manual)

    /// An operation.
    public init() {}

    /// The bytes of whichever operation completed last.
    public var bytes: Int { lock.locked { result } }

    /// How many operations have completed on this structure.
    public var count: Int { lock.locked { completions } }

    fileprivate func complete(_ bytes: Int) {
        lock.locked {
            result = bytes
            completions += 1
        }
        event.set()
    }
}

/// Carries out unguarded operations, one after the other, on a thread of its own.
public final class BrokenDevice: @unchecked Sendable {
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var jobs = CircularQueue<@Sendable () -> Void>()
    private var isEnding = false
    private let hasEnded = Gate()
    private var thread: Thread?

    /// Starts the thread.
    public init() throws(SystemError) {
        thread = try Thread("broken device") { [self] in
            while let job = next() { job() }
            hasEnded.open()
        }
    }

    private func next() -> (@Sendable () -> Void)? {
        monitor.locked {
            while jobs.isEmpty, !isEnding { monitor.wait() }
            return jobs.popFirst()
        }
    }

    private func add(_ job: @escaping @Sendable () -> Void) {
        monitor.locked {
            jobs.append(job)
            monitor.signal()
        }
    }

    /// Posts a receive. The socket has to block.
    public func receive(_ operation: BrokenOverlapped, from socket: Socket, into memory: Memory) {
        add { operation.complete((try? socket.receiveNow(into: memory.bytes)) ?? 0) }
    }

    /// Posts a read at the operation's offset, which is taken now. It is carried out when the gate is open.
    public func read(_ operation: BrokenOverlapped, of file: File, into memory: Memory, after gate: Gate) {
        let offset = Int(operation.offsetHigh) << 32 | Int(operation.offsetLow)
        let descriptor = file.descriptor
        add {
            gate.pass()
            operation.complete(
                max(0, pread(descriptor, memory.bytes.baseAddress, memory.bytes.count, offset)))
            withExtendedLifetime(file) {}
        }
    }

    /// Ends the thread when everything posted has been carried out. If that does not happen, it is left behind, and that is
    /// said.
    public func end() {
        monitor.locked {
            isEnding = true
            monitor.broadcast()
        }
        if hasEnded.pass() {
            thread?.join()
        } else {
            complain("a device has not carried out what was posted")
        }
    }
}
