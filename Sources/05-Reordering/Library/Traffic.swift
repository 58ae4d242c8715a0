import Glibc
import Kernel

/// What has gone through a connection, or through all of a hub's.
public struct Traffic: Sendable, Equatable {
    /// Bytes that handlers were given.
    public internal(set) var bytesReceived = 0
    /// Bytes that the system has taken, files included.
    public internal(set) var bytesSent = 0
    /// Chunks that handlers were given.
    public internal(set) var chunksReceived = 0
    /// Sends and transmits that have completed.
    public internal(set) var sends = 0
    /// Contexts that send at this moment, and tickets that are out.
    public internal(set) var pendingSends = 0
    /// Reads that are posted at this moment, with a buffer or without.
    public internal(set) var pendingReads = 0
    /// When the connection stood, in nanoseconds on the monotonic clock; 0 before that, and in a sum.
    public internal(set) var since: UInt64 = 0
    /// When bytes came last, on the same clock, to a few milliseconds; 0 when none ever did, and in a sum.
    public internal(set) var heard: UInt64 = 0

    mutating func received(_ bytes: Int) {
        bytesReceived += bytes
        chunksReceived += 1
        // The coarse clock is read without a look at the hardware: it is asked for each chunk.
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
        heard = UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    mutating func sent(_ bytes: Int) {
        bytesSent += bytes
        sends += 1
    }

    mutating func add(_ other: Traffic) {
        bytesReceived += other.bytesReceived
        bytesSent += other.bytesSent
        chunksReceived += other.chunksReceived
        sends += other.sends
        pendingSends += other.pendingSends
        pendingReads += other.pendingReads
    }
}
