import Glibc
import Kernel

/// How the system itself finds out that nobody is at the other end any more: it asks, and counts what is not answered.
///
/// Win32 counterpart: `SIO_KEEPALIVE_VALS`, and the socket options `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`.
public struct KeepAlive: Sendable, Equatable {
    /// Silence before the first question; whole seconds, at least 1.
    public var idle: Duration
    /// Between two questions; whole seconds, at least 1.
    public var interval: Duration
    /// Questions without an answer after which the connection is gone.
    public var probes: Int
    /// How long bytes that were sent may go without an answer; nil leaves it to the system: some 15 minutes. On
    /// Linux this number, where it is set, also counts instead of `probes`: keep both in step.
    public var unanswered: Duration?

    /// The system's own defaults ask for the first time after two hours. These find a dead peer in one minute.
    public init(
        idle: Duration = .seconds(30), interval: Duration = .seconds(10), probes: Int = 3,
        unanswered: Duration? = .seconds(60)
    ) {
        self.idle = idle
        self.interval = interval
        self.probes = probes
        self.unanswered = unanswered
    }

    /// Makes the system ask on this connection. Pending operations of a dead connection then fail with ETIMEDOUT.
    public func apply(to socket: Socket) throws(SystemError) {
        let tcp = Int32(IPPROTO_TCP)
        try socket.set(tcp, TCP_KEEPIDLE, seconds(idle))
        try socket.set(tcp, TCP_KEEPINTVL, seconds(interval))
        try socket.set(tcp, TCP_KEEPCNT, Int32(clamping: max(1, probes)))
        if let unanswered {
            try socket.set(tcp, TCP_USER_TIMEOUT, Int32(clamping: Int(unanswered / .milliseconds(1))))
        }
        try socket.set(SOL_SOCKET, SO_KEEPALIVE, 1)
    }

    private func seconds(_ duration: Duration) -> Int32 {
        Int32(clamping: max(1, Int((duration / .seconds(1)).rounded(.up))))
    }
}
