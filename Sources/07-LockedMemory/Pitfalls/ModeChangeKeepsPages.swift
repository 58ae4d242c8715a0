import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: a change of mode is a flag that the next receive looks at. Idle clients have no next receive.
final class BrokenFlag {
    var mode = ReceiveMode.buffered
    let budget = PageBudget(pages: 64)
    private let slab: PageSlab
    private let port: CompletionPort
    private var pending: [Overlapped] = []

    init(_ driver: DriverKind) throws(SystemError) {
        slab = try PageSlab(bufferSize: Page.size, capacity: 64)
        port = try CompletionPort.on(driver)
    }

    func admit(_ socket: Socket) throws(SystemError) {
        try port.associate(socket, key: 1)
        if mode == .zeroByte {
            let wait = Overlapped()
            pending.append(wait)
            return try socket.receive(wait, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
        }
        let reading = Reading(into: slab.take()!)
        pending.append(reading)
        try budget.charge(UnsafeRawBufferPointer(reading.memory), to: reading)
        try socket.receive(reading, into: reading.memory)
    }

    /// Takes the packets of sockets that have been closed.
    func end() {
        for _ in pending { _ = try? port.next() }
        port.close()
    }
}

/// After the change to zero bytes the idle clients' buffers stay locked.
public enum ModeChangeKeepsPages {
    private static let before = 8
    private static let after = 4

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "mode-change-keeps-pages",
        title:
            "the mode changes to zero bytes, and receives that are pending already keep their pages locked",
        broken: { driver in
            let server = try BrokenFlag(driver)
            var pairs: [Pair] = []
            for number in 0..<before + after {
                if number == before { server.mode = .zeroByte }
                let pair = try Pair()
                pairs.append(pair)
                try server.admit(pair.server)
            }
            let locked = server.budget.counters.locked
            for pair in pairs { pair.server.close() }
            server.end()
            return Observation(
                happened: locked == before,
                lines: [
                    "\(before) idle clients with buffers, the mode changes, \(after) more come",
                    "pages locked, for as long as these clients are silent: \(locked)",
                ])
        },
        fixed: { driver in
            let thresholds = ReceiveThresholds(zeroByteFrom: before + 1, bufferedUpTo: 2)
            let server = try BudgetedServer.on(driver, .adaptive(thresholds), budget: 64)
            let first = try server.clients(before)
            let isLocked = eventually { server.pages.locked == before }
            let others = try server.clients(after)
            let isFree = eventually { server.pages.locked == 0 && server.receives.slab.counters.inUse == 0 }
            let answered = (first + others).count { $0.isAnswered() }
            let isClean = server.stop()
            return Observation(
                happened: !isLocked || !isFree || answered != before + after || !isClean,
                lines: [
                    "\(before) idle clients with buffers: \(isLocked ? before : 0) pages locked",
                    "\(after) more come, the mode changes: "
                        + "\(isFree ? "0 pages locked, no buffer in use" : "pages are still locked")",
                    "all of them speak; answered: \(answered) of \(before + after)",
                ])
        })
}
