import Glibc
import Kernel

/// How it is found out that no peer is at the other end any more: by asking, and counting what is not answered.
///
/// The system asks peers that are silent. What it does not find in time are peers that leave *sent data* unanswered: it
/// tries for a quarter of an hour. For them the rounds of a clock look (`UnansweredPeers`).
///
/// Win32 counterpart: `SIO_KEEPALIVE_VALS`, and the socket options `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`.
public struct KeepAlive: Sendable, Equatable {
    /// Silence before the first question; whole seconds, at least 1.
    public var idle: Duration
    /// Between two questions; whole seconds, at least 1.
    public var interval: Duration
    /// Questions without an answer after which the connection is gone.
    public var probes: Int
    /// How long bytes that were sent may go without an answer of any kind; nil leaves it to the system. A closed window
    /// is an answer. Looked at by `UnansweredPeers`, not by the system.
    public var unanswered: Duration?

    /// The system's own defaults ask for the first time after two hours. These find a dead peer in one minute, and one
    /// with unanswered data in a quarter more; one that had closed its window before it died, two minutes later.
    public init(
        idle: Duration = .seconds(30), interval: Duration = .seconds(10), probes: Int = 3,
        unanswered: Duration? = .seconds(60)
    ) {
        self.idle = idle
        self.interval = interval
        self.probes = probes
        self.unanswered = unanswered
    }

    /// Makes the system ask on this connection, or on all that a listener will accept. Pending operations of a dead
    /// connection then fail with ETIMEDOUT.
    public func apply(to socket: Socket) throws(SystemError) {
        let tcp = Int32(IPPROTO_TCP)
        try socket.set(tcp, TCP_KEEPIDLE, seconds(idle))
        try socket.set(tcp, TCP_KEEPINTVL, seconds(interval))
        try socket.set(tcp, TCP_KEEPCNT, Int32(clamping: max(1, probes)))
        try socket.set(SOL_SOCKET, SO_KEEPALIVE, 1)
    }

    private func seconds(_ duration: Duration) -> Int32 {
        Int32(clamping: max(1, Int((duration / .seconds(1)).rounded(.up))))
    }
}
