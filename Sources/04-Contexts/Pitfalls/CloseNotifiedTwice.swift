import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: every failed operation announces that its connection is over.
final class BrokenAnnouncer: Sendable {
    let announcements = Guarded<[String]>([])

    func handle(_ packet: Packet) {
        if let error = packet.error { announcements.locked { $0.append("\(packet.key): \(error)") } }
    }
}

/// Two failing operations both announce the same end.
public enum CloseNotifiedTwice {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "close-notified-twice",
        title: "each operation that fails announces the end of the same connection",
        broken: { driver in
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 7)
            let requests = [Request(), Request()]
            for request in requests { try pair.server.receive(request, into: request.memory) }
            try pair.client.abort()
            let announcer = BrokenAnnouncer()
            for _ in requests { announcer.handle(try port.next()) }
            port.close()
            let lines = announcer.announcements.locked { $0 }
            return Observation(
                happened: lines.count == 2,
                lines: ["two receives were pending, and the client reset the connection"]
                    + lines.map { "announced: connection \($0)" })
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let pair = try Pair()
            let connection = try stand.table.admit(pair.server)
            // A receive is pending already. More than fits is on its way to a client that does not read.
            try pair.server.setBufferSizes(send: 4_096)
            let filler = Request()
            var plain = 0
            while case .some(let sent) = try pair.server.sendNow(UnsafeRawBufferPointer(filler.memory)) {
                plain += sent
            }
            let push = [UInt8](repeating: LeavingClients.push, count: 512)
            for _ in 1...4 { try connection.push(push) }
            let pending = stand.table.contexts.counters.inUse
            try pair.client.abort()
            let isThrough = stand.turns { stand.table.contexts.counters.inUse == 0 }
            // Asking again, from several threads, changes nothing.
            inThreads(4) { _ in connection.close() }
            let ends = stand.ends.locked { $0 }
            stand.port.close()
            return Observation(
                happened: !isThrough || ends != [.reset] || pending != 5,
                lines: [
                    "\(pending) operations were pending behind \(plain) bytes, and the client reset the connection",
                    "four threads closed it once more; announced \(ends.count) time: "
                        + ends.map(\.description).joined(separator: ", "),
                ])
        })
}
