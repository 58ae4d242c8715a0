import Kernel
import Timeline

/// What a port hands to a worker: whose, what, and how much.
///
/// Win32 counterpart: `OVERLAPPED_ENTRY`, or the three out-parameters of `GetQueuedCompletionStatus`.
public struct Packet: @unchecked Sendable {
    /// The completion key: of the handle whose operation completed, or whatever was posted.
    public let key: UInt
    /// Bytes transferred, or whatever was posted.
    public let bytes: Int
    /// The operation; nil is possible in posted packets only. It is the receiver's again.
    public let operation: Overlapped?
    /// Whether `post` put the packet here rather than an operation's completion.
    public let isPosted: Bool
    /// The system's error number; 0 when the operation succeeded, and in every posted packet.
    public let errorCode: Int32

    init(completed operation: consuming Overlapped) {
        key = operation.completionKey
        bytes = operation.bytes
        errorCode = operation.errorCode
        isPosted = false
        self.operation = operation
    }

    init(posted operation: Overlapped?, bytes: Int, key: UInt) {
        self.key = key
        self.bytes = bytes
        self.operation = operation
        isPosted = true
        errorCode = 0
    }

    /// What went wrong with the operation; nil when nothing did.
    public var error: SystemError? { errorCode == 0 ? nil : operation?.error }
}

/// What came of asking a port: four outcomes, and each says what it carries. I2.3
///
/// Win32 counterpart: the combinations of `GetQueuedCompletionStatus`' result, its `lpOverlapped` and `GetLastError`.
public enum Dequeued: Sendable {
    /// An operation that succeeded, or a posted packet. Win32: TRUE.
    case completed(Packet)
    /// An operation that failed, with its key and its context. Win32: FALSE with an `OVERLAPPED`.
    case failed(Packet, SystemError)
    /// Nothing came in time; there is no packet. Win32: FALSE, null, `WAIT_TIMEOUT`.
    case timedOut
    /// The port is closed and empty; there will be no packet. Win32: FALSE, null, `ERROR_ABANDONED_WAIT_0`.
    case closed
}

/// What came of asking a port for several packets at once.
public enum DequeuedBatch: Sendable, Equatable {
    /// This many packets are in the batch, at least one. Some of them may tell of failed operations.
    case packets(Int)
    /// Nothing came in time.
    case timedOut
    /// The port is closed and empty.
    case closed
}

/// Room for the packets that one dequeue takes. A worker makes one and uses it again and again.
///
/// Not for several threads at once. Win32 counterpart: the array of `OVERLAPPED_ENTRY`.
public struct PacketBatch: ~Copyable {
    /// The most packets that one dequeue puts here.
    public let capacity: Int
    private var packets: CircularQueue<Packet>

    /// An empty batch with room for `capacity` packets.
    public init(capacity: Int = 64) {
        self.capacity = max(1, capacity)
        packets = CircularQueue(capacity: self.capacity)
    }

    /// How many packets are left in the batch.
    public var count: Int { packets.count }

    /// Takes the oldest packet out; nil when the batch is empty.
    public mutating func next() -> Packet? {
        if packets.isEmpty { return nil }
        let packet = packets.removeFirst()
        if Recorder.isRecording { Recorder.mark(.dequeued, packet.operation?.identity ?? 0) }
        return packet
    }

    mutating func append(_ packet: consuming Packet) { packets.append(packet) }
}
