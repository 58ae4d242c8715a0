import CompletionPorts
import Contexts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: asks for the buffers back, and takes every receive that comes back cancelled for an end, as on
/// a connection that was closed.
final class BrokenChangeOver {
    private let slab: PageSlab
    private let port: CompletionPort
    private var readings: [(socket: Socket, reading: Reading)] = []
    private(set) var ends: [CloseReason] = []

    init(_ driver: DriverKind) throws(SystemError) {
        slab = try PageSlab(bufferSize: Page.size, capacity: 16)
        port = try CompletionPort.on(driver)
    }

    func admit(_ socket: Socket) throws(SystemError) {
        try port.associate(socket, key: UInt(readings.count))
        let reading = Reading(into: slab.take()!)
        readings.append((socket, reading))
        try socket.receive(reading, into: reading.memory)
    }

    func changeOver() throws(SystemError) {
        for (socket, reading) in readings { socket.cancel(reading) }
        for _ in readings {
            let packet = try port.next()
            if let reason = CloseReason(.receive, bytes: packet.bytes, error: packet.error) {
                readings[Int(packet.key)].socket.close()
                ends.append(reason)
            }
        }
        port.close()
    }
}

/// A receive that was cancelled to change over is taken for the connection's end.
public enum ChangeOverIsNotTheEnd {
    private static let clients = 8

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "change-over-is-not-the-end",
        title:
            "receives that were cancelled to change over are taken for ends, and all idle clients are dropped",
        broken: { driver in
            let server = try BrokenChangeOver(driver)
            var pairs: [Pair] = []
            for _ in 0..<clients {
                let pair = try Pair()
                pairs.append(pair)
                try server.admit(pair.server)
            }
            try server.changeOver()
            let dropped = pairs.count { $0.client.isEnded() }
            return Observation(
                happened: dropped == clients && server.ends == .init(repeating: .cancelled, count: clients),
                lines: [
                    "\(clients) idle clients, and the mode changes: \(server.ends.count) receives come back cancelled",
                    "clients dropped: \(dropped)",
                ])
        },
        fixed: { driver in
            let thresholds = ReceiveThresholds(zeroByteFrom: clients, bufferedUpTo: 1)
            let server = try BudgetedServer.on(driver, .adaptive(thresholds), budget: 64)
            var all = try server.clients(clients - 1)
            _ = eventually { server.pages.locked == clients - 1 }
            // The one more comes, and at the same time the others speak: each receive meets its bytes or the cancel.
            let last = startThread("last client") { [all] in
                for client in all { try? client.say("hello") }
            }
            all += try server.clients(1)
            last.join()
            let whole = try all.dropLast().count { try $0.hear(5) == "hello" }
            let answered = all.count { $0.isAnswered("again") }
            let (ends, changes) = (server.hub.counters.reasons, server.receives.changesMade)
            let isClean = server.stop()
            return Observation(
                happened: whole != clients - 1 || answered != clients || !ends.isEmpty
                    || changes.toZeroByte != 1 || !isClean,
                lines: [
                    "\(clients - 1) clients speak while one more comes and the mode changes; "
                        + "words that came back whole: \(whole)",
                    "all speak once more; answered: \(answered) of \(clients); connections ended: \(ends.count)",
                ])
        })
}
