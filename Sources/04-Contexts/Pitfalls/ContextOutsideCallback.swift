import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a table whose lock covers the looking up, and not what is done with what was found. Contexts
/// are pooled, and so is this one's next owner.
final class BrokenTable: @unchecked Sendable {
    final class Context: Pooled, @unchecked Sendable {
        var link = PoolLink()
        var socket: Socket?
    }

    private let lock = Lock()
    private let list = FreeList<Context>(maximumFree: 4) { Context() }
    private var clients: [(name: Int, context: Context)] = []  // under the lock

    func add(_ name: Int, _ socket: Socket) {
        guard let context = list.take() else { return }
        context.socket = socket
        lock.locked { clients.append((name, context)) }
    }

    func remove(_ name: Int) {
        lock.locked {
            guard let index = clients.firstIndex(where: { $0.name == name }) else { return }
            list.giveBack(clients.remove(at: index).context)
        }
    }

    func find(_ name: Int) -> Context? { lock.locked { clients.first { $0.name == name }?.context } }

    /// Walks while the callback removes: whoever moves up into a place that was visited already is passed over.
    func walk(_ callback: (Int) -> Void) {
        var index = 0
        while let name = lock.locked({ index < clients.count ? clients[index].name : nil }) {
            callback(name)
            index += 1
        }
    }
}

/// A context is used after the lock of the table was given back: rule of thumb 3.
public enum ContextOutsideCallback {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "context-outside-callback",
        title: "a context found in the table is used after the table's lock was given back",
        broken: { _ in
            let (first, second) = (try Pair(), try Pair())
            let table = BrokenTable()
            table.add(1, first.server)
            let found = table.find(1)
            // Another worker: client 1 leaves, and client 2 comes.
            table.remove(1)
            table.add(2, second.server)
            try found?.socket?.say("for client 1")
            let heard = try second.client.hear(12)

            let walked = BrokenTable()
            for name in 1...4 { walked.add(name, first.server) }
            var visited: [Int] = []
            walked.walk { name in
                visited.append(name)
                if name % 2 == 1 { walked.remove(name) }
            }
            return Observation(
                happened: heard == "for client 1" && visited != [1, 2, 3, 4],
                lines: [
                    "client 1 was looked up and left; client 2 came; client 2 heard: \"\(heard)\"",
                    "four clients were walked while callbacks removed some; visited: \(visited)",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let (first, second) = (try Pair(), try Pair())
            let id = try stand.table.admit(first.server).id
            let found = stand.table.registry.find(id)
            found?.close()
            let isGone = stand.table.registry.find(id) == nil
            try stand.turn()
            try stand.table.admit(second.server)
            let push = [UInt8](repeating: LeavingClients.push, count: 12)
            var refusal: SystemError?
            do throws(SystemError) {
                try found?.push(push)
            } catch {
                refusal = error
            }
            let heard = try second.client.hear(1, within: .milliseconds(50))
            _ = stand.finish()

            let walk = try Stand(driver)
            var pairs: [Pair] = []
            for _ in 1...4 {
                pairs.append(try Pair())
                try walk.table.admit(pairs.last!.server)
            }
            var visited = 0
            for (index, connection) in walk.table.registry.snapshot().enumerated() {
                visited += 1
                if index % 2 == 0 { connection.close() }
            }
            let reached = walk.table.pushAll(push)
            return Observation(
                happened: heard != "" || refusal?.code != EBADF || !isGone || visited != 4 || reached != 2
                    || !walk.finish(),
                lines: [
                    "client 1 was looked up and left; client 2 came, and heard: \"\(heard)\"",
                    "what was sent to client 1: \(refusal?.description ?? "accepted")",
                    "four clients were walked while two of them were closed; visited: \(visited), "
                        + "still there to send to: \(reached)",
                ])
        })
}
