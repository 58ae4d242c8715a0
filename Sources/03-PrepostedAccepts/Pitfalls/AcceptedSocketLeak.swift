import CompletionPorts
import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: during shutdown, what completes is thrown away unseen.
final class BrokenShutdown: Sendable {
    let isStopping = Gate()
    let isBusy = Gate()
    let mayGoOn = Gate()

    func completed(_ frame: Frame, _ slot: Slot, _ bytes: Int, _ error: SystemError?) {
        isBusy.open()
        mayGoOn.pass()
        // The accept has completed, so there may be a client in its socket. Nobody closes it.
        if isStopping.isOpen { return }
        frame.serve(slot.socket, first: slot.firstData(bytes))
        try? slot.post(on: frame.listener)
    }
}

/// A pool on a port of its own, whose first client holds the only worker up.
private final class HeldUpPool: @unchecked Sendable {
    let isBusy = Gate()
    let mayGoOn = Gate()
    let address: Address
    private let pool: AcceptPool
    private let workers: WorkerGroup
    /// A server keeps those who got in: the pool alone can close who gets in too late.
    private let kept: Kept

    private final class Kept: @unchecked Sendable {
        private let lock = Lock()
        private var sockets: [Socket] = []  // under the lock

        func keep(_ socket: Socket) { lock.locked { sockets.append(socket) } }

        func close() { for socket in lock.locked({ sockets }) { socket.close() } }
    }

    init(_ driver: DriverKind, accepts: Int) throws {
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        let listener = try Socket.listener(on: .loopback())
        address = try listener.localAddress
        try port.associate(listener, key: 0)
        var limits = AcceptPool.Options()
        limits.receiveLength = 0
        limits.initial = accepts
        let (isBusy, mayGoOn, kept) = (isBusy, mayGoOn, Kept())
        self.kept = kept
        let pool = try AcceptPool(on: listener, options: limits) { arrival in
            let isFirst = !isBusy.isOpen
            isBusy.open()
            mayGoOn.pass()
            if isFirst { arrival.client.socket.close() } else { kept.keep(arrival.client.socket) }
        }
        self.pool = pool
        workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
    }

    /// Posts the accepts. The clients who have connected before that get in at once, though their packets come later.
    func start() throws { try pool.start() }

    /// The worker goes on when the pool has begun to stop: when nobody can connect any more.
    func stop() {
        let pool = pool
        let stopping = startThread("stops") { pool.stop() }
        _ = eventually { (try? Caller(to: address)) == nil }
        mayGoOn.open()
        stopping.join()
        workers.stop()
    }

    func close() { kept.close() }
}

/// An accept that completes during shutdown leaves its socket open.
public enum AcceptedSocketLeak {
    static let accepts = 10

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accepted-socket-leak",
        title: "an accept that completes during shutdown leaves its socket open, and its client waiting",
        broken: { driver in
            let shutdown = BrokenShutdown()
            let server = try Frame(driver, slots: accepts, room: 0, completed: shutdown.completed)
            return try lateClients(server.address, shutdown.isBusy, start: {}) {
                shutdown.isStopping.open()
                shutdown.mayGoOn.open()
                server.stop()
                return server.slots.filter { $0.socket.descriptor >= 0 }.count
            }
        },
        fixed: { driver in
            let server = try HeldUpPool(driver, accepts: accepts)
            defer { server.close() }
            return try lateClients(server.address, server.isBusy, start: server.start) {
                server.stop()
                return nil
            }
        })

    /// The only worker is held up with the first of ten clients, while the server is told to stop.
    private static func lateClients(
        _ server: Address, _ isBusy: Gate, start: () throws -> Void, stop: () -> Int?
    ) throws -> Observation {
        let callers = try Caller.several(accepts, to: server)
        try start()
        isBusy.pass()
        let left = stop()
        let told = callers.map { $0.isEnded(within: .milliseconds(50)) }.yes
        for caller in callers { caller.socket.close() }
        return Observation(
            happened: told < accepts,
            lines: [
                "\(accepts) clients connect; the worker is busy with the first while the server is stopped",
                left.map { "sockets still open when it has stopped: \($0)" },
                "clients who have heard the end: \(told) of \(accepts)",
            ].compactMap(\.self))
    }
}
