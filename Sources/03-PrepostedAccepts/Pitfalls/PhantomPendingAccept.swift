import CompletionPorts
import Glibc
import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: counts an accept as pending because somebody wanted it to be.
final class BrokenPendingCount: @unchecked Sendable {
    let listener: Socket
    private let slots = (0..<4).map { _ in Slot() }
    private(set) var pending = 0

    init(_ listener: Socket) { self.listener = listener }

    /// Keeps four accepts pending, in sockets that came back from earlier clients.
    func replenish(with socket: () -> Socket) {
        while pending < slots.count {
            let slot = slots[pending]
            slot.socket = socket()
            pending += 1
            // Refused: the socket still has its connection. The count says otherwise, now and for ever.
            try? listener.accept(slot, slot.socket, into: slot.memory, receiveLength: slot.room)
        }
    }

    var trulyPending: Int { slots.filter(\.isPending).count }
}

/// A failed post is counted as pending.
public enum PhantomPendingAccept {
    static let accepts = 4

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "phantom-pending-accept",
        title: "a post that failed is counted as pending, so nobody posts another one",
        broken: { driver in
            let server = try Frame(driver, slots: 0) { _, slot, _, _ in slot.socket.close() }
            let used = try UsedSockets(accepts)
            let count = BrokenPendingCount(server.listener)
            var left = used.sockets[...]
            count.replenish { left.removeFirst() }
            count.replenish { Socket() }
            return try look(server.address, counted: { count.pending }, truly: count.trulyPending) {
                server.stop()
                used.close()
            }
        },
        fixed: { driver in
            let used = try UsedSockets(accepts)
            var options = CompletionPort.Options()
            options.driver = driver
            let port = try CompletionPort(concurrency: 1, options: options)
            let listener = try Socket.listener(on: .loopback())
            try port.associate(listener, key: 0)
            var limits = AcceptPool.Options()
            limits.initial = accepts
            limits.receiveLength = 0
            let pool = try AcceptPool(on: listener, options: limits) { $0.client.socket.close() }
            // The same four sockets: each is refused, set aside, and replaced by a fresh one.
            for socket in used.sockets { pool.reuse(socket) }
            let workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
            try pool.start()
            let isRestored = eventually { pool.counters.pending == accepts }
            let refused = pool.counters.refusedPosts
            return try look(
                listener.localAddress, counted: { pool.counters.pending }, truly: isRestored ? accepts : 0,
                refused: refused
            ) {
                pool.stop()
                workers.stop()
                used.close()
            }
        })

    private static func look(
        _ server: Address, counted: () -> Int, truly: Int, refused: Int = accepts, stop: () -> Void
    ) throws -> Observation {
        let count = counted()
        let caller = try Caller(to: server)
        let isTaken = caller.isEnded(within: truly == 0 ? Caller.glance : Gate.patience)
        caller.socket.close()
        stop()
        return Observation(
            happened: count != truly || !isTaken,
            lines: [
                "\(refused) posts were refused, since their sockets were not fresh",
                "counted as pending: \(count); really pending: \(truly)",
                "a client that connects now is \(isTaken ? "taken" : "not taken")",
            ])
    }
}

/// Sockets that have a connection, and so are no good for an accept.
private struct UsedSockets {
    let sockets: [Socket]
    private let others: [Socket]

    init(_ count: Int) throws(SystemError) {
        let listener = try Socket.listener(on: .loopback())
        try listener.setBlocking(true)
        var (sockets, others): ([Socket], [Socket]) = ([], [])
        for _ in 0..<count {
            others.append(try Socket.connected(to: try listener.localAddress))
            sockets.append(try listener.acceptNow()!)
        }
        listener.close()
        (self.sockets, self.others) = (sockets, others)
    }

    func close() { for socket in sockets + others { socket.close() } }
}
