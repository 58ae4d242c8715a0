import CompletionPorts
import Contexts
import Kernel
import Synchronization

/// What the connections of a server share: the port, the budget, the slab, the mode, and the list of all of them.
final class ThriftyHouse: @unchecked Sendable {
    let port: CompletionPort
    let budget: PageBudget
    let slab: PageSlab
    let modes: ModeSwitch
    private let maximumConnections: Int
    private let beforeReading: (@Sendable () -> Void)?
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var open: [ObjectIdentifier: ThriftyConnection] = [:]
    private var count = ThriftyServer.Counters()
    private var isStopping = false
    private let notices = Atomic<Int>(0)
    private let vainNotices = Atomic<Int>(0)
    private let receives = Atomic<Int>(0)

    init(
        port: CompletionPort, budget: PageBudget, slab: PageSlab, modes: ModeSwitch, maximumConnections: Int,
        beforeReading: (@Sendable () -> Void)?
    ) {
        self.port = port
        self.budget = budget
        self.slab = slab
        self.modes = modes
        self.maximumConnections = maximumConnections
        self.beforeReading = beforeReading
    }

    var counters: ThriftyServer.Counters {
        var counters = monitor.locked { count }
        counters.notices = notices.load(ordering: .relaxed)
        counters.vainNotices = vainNotices.load(ordering: .relaxed)
        counters.receives = receives.load(ordering: .relaxed)
        counters.changes = modes.changesMade
        return counters
    }

    // MARK: Told by the connections

    func noticed() {
        notices.add(1, ordering: .relaxed)
        beforeReading?()
    }
    func noticedInVain() { vainNotices.add(1, ordering: .relaxed) }
    func received() { receives.add(1, ordering: .relaxed) }

    func budgetRanShort() {
        if modes.budgetRanShort() { changeOver() }
    }

    func finished(_ connection: ThriftyConnection, _ why: CloseReason) {
        monitor.locked {
            guard open.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
            count.connections = open.count
            count.ends[why, default: 0] += 1
            _ = modes.connectionsAre(open.count)
            if open.isEmpty { monitor.broadcast() }
        }
    }

    // MARK: In and out

    /// Takes a connection in, or closes it if there are too many.
    func admit(_ socket: Socket) {
        let connection = ThriftyConnection(socket, self)
        var isChanged = false
        let isWelcome = monitor.locked {
            guard !isStopping, open.count < maximumConnections else {
                count.refused += 1
                return false
            }
            open[ObjectIdentifier(connection)] = connection
            count.accepted += 1
            count.connections = open.count
            isChanged = modes.connectionsAre(open.count)
            return true
        }
        guard isWelcome else { return socket.close() }
        // In the list first, and the mode is looked at after that: a change of mode meanwhile is seen by one of both.
        connection.start()
        if isChanged { changeOver() }
    }

    /// Asks everybody for the buffers of pending receives. No lock of the list is held meanwhile.
    private func changeOver() {
        for connection in monitor.locked({ Array(open.values) }) { connection.changeOver() }
    }

    /// Closes all connections, and waits until everything is back. Workers have to be at work meanwhile.
    func closeAll(within patience: Duration = .seconds(10)) -> Bool {
        let all = monitor.locked {
            isStopping = true
            return Array(open.values)
        }
        for connection in all { connection.close() }
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while !open.isEmpty {
                if !monitor.wait(until: deadline) { return open.isEmpty }
            }
            return true
        }
    }
}
