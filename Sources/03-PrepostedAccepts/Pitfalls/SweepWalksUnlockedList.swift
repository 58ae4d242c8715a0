import CompletionPorts
import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: looks through the list, and closes later what it saw, while the worker changes it.
struct BrokenSweep {
    static func run(_ slots: [Slot], limit: Duration, meanwhile: () -> Void) {
        let silent = slots.filter { ($0.socket.connectTime ?? .zero) >= limit }
        if silent.isEmpty { return }
        meanwhile()
        // By now the accept may have been posted again, and this is another client's socket.
        for slot in silent { slot.socket.close() }
    }
}

/// The sweep walks the list while workers change it.
public enum SweepWalksUnlockedList {
    static let limit = Duration.milliseconds(20)

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "sweep-walks-unlocked-list",
        title: "the sweep looks, a worker hands the accept on, and the sweep closes an innocent client",
        broken: { driver in
            let server = try Frame(driver, slots: 1) { frame, slot, bytes, error in
                if error == nil { frame.serve(slot.socket, first: slot.firstData(bytes)) }
                try? slot.post(on: frame.listener)
            }
            return try schedule(server.address, patience: Caller.glance) { meanwhile in
                BrokenSweep.run(server.slots, limit: limit, meanwhile: meanwhile)
            } stop: {
                server.stop()
            }
        },
        fixed: { driver in
            let server = try SweptPool(driver)
            return try schedule(server.address) { meanwhile in
                server.pool.sweep(meanwhile)
            } stop: {
                server.stop()
            }
        })

    /// Between the sweep's look and its closing, the silent client speaks, and another one connects.
    private static func schedule(
        _ server: Address, patience: Duration = Gate.patience, sweep: (() -> Void) -> Void, stop: () -> Void
    ) throws -> Observation {
        let slow = try Caller(to: server)
        var next: Caller?
        var failure: SystemError?
        let meanwhile = {
            do throws(SystemError) {
                try slow.say("here I am")
                _ = try slow.hear(9, within: Caller.glance)
                let caller = try Caller(to: server)
                next = caller
                // A moment for the accept to take it. It has said nothing wrong, and little time has passed.
                _ = caller.isEnded(within: .milliseconds(10))
            } catch {
                failure = error
            }
        }
        // Until the silent client's time is over, the sweep sees nobody.
        _ = eventually {
            sweep(meanwhile)
            return next != nil || failure != nil
        }
        if let failure { throw failure }
        let isServed = try next?.isAnswered("hello", within: patience) ?? false
        slow.socket.close()
        next?.socket.close()
        stop()
        return Observation(
            happened: !isServed,
            lines: [
                "the sweep has seen a silent client; before it acts, that one speaks, and another connects",
                "the other one, who has broken no rule, is \(isServed ? "served" : "closed")",
            ])
    }
}

/// A pool of one accept, swept by the scenario alone.
private final class SweptPool: Sendable {
    let address: Address
    let pool: AcceptPool
    private let workers: WorkerGroup

    init(_ driver: DriverKind) throws {
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        let listener = try Socket.listener(on: .loopback())
        address = try listener.localAddress
        try port.associate(listener, key: 0)
        var limits = AcceptPool.Options()
        (limits.initial, limits.lowWater, limits.maximum) = (1, 0, 1)
        limits.silenceLimit = SweepWalksUnlockedList.limit
        limits.lookInterval = .seconds(60)
        let served = Served()
        let pool = try AcceptPool(on: listener, options: limits) { served.answer($0) }
        self.pool = pool
        workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
        try pool.start()
    }

    func stop() {
        pool.stop()
        workers.stop()
    }

    /// Answers the first words, and keeps the connection.
    private final class Served: @unchecked Sendable {
        private let lock = Lock()
        private var sockets: [Socket] = []  // under the lock

        func answer(_ arrival: Arrival) {
            lock.locked { sockets.append(arrival.client.socket) }
            _ = try? arrival.client.socket.sendNow(arrival.firstData)
        }
    }
}
