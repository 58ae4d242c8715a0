import Kernel

/// A thread for each client.
///
/// The code of one client reads from top to bottom, as if there were no other. What that costs is a thread for
/// every client, awake or not: this server does not keep I0.2.
public final class ThreadServer: EchoServer, @unchecked Sendable {
    // Guarded by the monitor.
    private var clients: [ObjectIdentifier: (socket: Socket, thread: Thread)] = [:]
    /// The client's thread that ended last. The next one to end joins it, so at most one waits to be joined.
    private var lastEnded: Thread?

    /// Listens and serves from now on. - Throws: as listening does; EAGAIN when there is no thread.
    public init(on address: Address = .loopback(), limits: Limits = Limits()) throws(SystemError) {
        try super.init(listeningOn: address, limits)
        try listener.setBlocking(true)
        try start("accept")
    }

    override func run() {
        while !isStopping.load(ordering: .acquiring) {
            do throws(SystemError) {
                if let socket = try listener.acceptNow() { begin(socket) }
            } catch {
                pauseAccepting()
            }
        }
    }

    private func begin(_ socket: Socket) {
        guard ledger.admit(limit: limits.clients) else { return socket.refuse() }
        do throws(SystemError) {
            // The client's thread cannot leave before it stands in `clients`: leaving needs the monitor.
            try monitor.locked { () throws(SystemError) in
                let thread = try Thread("client") {
                    socket.serveBlocking(self.limits, self.ledger)
                    self.leave(socket)
                }
                clients[ObjectIdentifier(socket)] = (socket, thread)
            }
        } catch {
            ledger.dismissUnserved()
            socket.refuse()
        }
    }

    /// The last act of a client's thread.
    private func leave(_ socket: Socket) {
        let previous = monitor.locked {
            let thread = clients.removeValue(forKey: ObjectIdentifier(socket))?.thread
            defer { lastEnded = thread }
            monitor.broadcast()
            return lastEnded
        }
        previous?.join()
    }

    /// Ends every thread and closes everything. (I0.7)
    public override func stop() {
        super.stop()
        // No client comes any more. A thread that waits in a call cannot be asked to end; the call has to fail.
        let last = monitor.locked {
            for client in clients.values { client.socket.interrupt() }
            while !clients.isEmpty { monitor.wait() }
            return lastEnded
        }
        last?.join()
    }
}
