import Glibc
import Kernel

/// Finds peers that no longer answer what was sent to them, and leaves alone those that only do not read.
///
/// A peer that does not read has closed its window: nothing can be sent to it, and nothing is acknowledged. But its
/// system lives, and answers when it is asked whether the window is open again. A dead peer answers nothing at all. The
/// system's own time-out for unanswered data (`TCP_USER_TIMEOUT`) does not tell one from the other; the time of the
/// last answer does. (I4.9)
///
/// A value of the caller that makes the rounds. In each round it is asked about every connection, and then told that the round
/// is over.
public struct UnansweredPeers: Sendable {
    private let limit: UInt64
    /// When a round first saw that something was unanswered. Only few connections are in it at a time.
    private var earlier: [ConnectionID: UInt64] = [:]
    private var now: [ConnectionID: UInt64] = [:]

    /// - Parameter limit: How long what was sent may go without an answer.
    public init(limit: Duration) { self.limit = UInt64(clamping: Int64(limit / .nanoseconds(1))) }

    /// Whether that connection's peer has not answered for so long.
    public mutating func isGone(_ id: ConnectionID, _ socket: Socket, now moment: UInt64) -> Bool {
        guard let lastAnswer = socket.unansweredSince(moment) else { return false }
        // An answer that came after the question was first seen begins it anew.
        let since = earlier[id].flatMap { $0 > lastAnswer ? $0 : nil } ?? moment
        now[id] = since
        return moment - since >= limit
    }

    /// The round is over: what was not asked about in it is forgotten.
    public mutating func endRound() {
        earlier = now
        now = [:]
    }
}

extension Socket {
    /// If bytes, or a question for room, wait for the peer's answer: when it last answered anything; nanoseconds on the
    /// monotonic clock. Nil when nothing waits.
    func unansweredSince(_ now: UInt64) -> UInt64? {
        var info = tcp_info()
        var length = socklen_t(MemoryLayout<tcp_info>.size)
        guard getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_INFO, &info, &length) == 0,
            info.tcpi_unacked > 0 || info.tcpi_probes > 0
        else { return nil }
        // The system counts in milliseconds since then.
        return now - min(now, UInt64(info.tcpi_last_ack_recv) * 1_000_000)
    }
}
