import Kernel

/// One thread with blocking calls: it serves a client until that client leaves, then takes the next one.
///
/// The shortest server there is, and right as long as no client makes the others wait. One that stays and says
/// nothing does: the thread waits in `receive` for it, and for it alone. This server does not keep I0.3.
public final class TurnServer: EchoServer, @unchecked Sendable {
    /// Whose turn it is. Guarded by the monitor.
    private var current: Socket?

    /// Listens and serves from now on; `limits.clients` bounds the clients that wait. - Throws: as `ThreadServer` does.
    public init(on address: Address = .loopback(), limits: Limits = Limits()) throws(SystemError) {
        try super.init(listeningOn: address, limits, backlog: limits.clients)
        try listener.setBlocking(true)
        try start("turns")
    }

    override func run() {
        while !isStopping.load(ordering: .acquiring) {
            do throws(SystemError) {
                guard let socket = try listener.acceptNow(), ledger.admit(limit: 1) else { continue }
                monitor.locked {
                    current = socket
                    // Too late for `wake` to see this client.
                    if isStopping.load(ordering: .relaxed) { socket.interrupt() }
                }
                socket.serveBlocking(limits, ledger)
            } catch {
                pauseAccepting()
            }
        }
    }

    override func wake() {
        super.wake()
        monitor.locked { current?.interrupt() }
    }
}
