import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: calls a client by the number of its socket.
struct BrokenNames {
    private var clients: [Int32: Socket] = [:]

    mutating func add(_ socket: Socket) -> Int32 {
        let name = socket.descriptor
        clients[name] = socket
        return name
    }

    mutating func remove(_ name: Int32) { clients.removeValue(forKey: name)?.close() }
    func find(_ name: Int32) -> Socket? { clients[name] }
}

/// Clients come and go so fast that a name means the next client already.
public enum ReusedIdentifier {
    /// For the demo and the tests. Descriptors are the whole process's: the tests run the broken half in one of its own.
    public static let pitfall = Pitfall(
        slug: "reused-identifier",
        title: "a client's name is its socket's number, and names the next client already",
        broken: { _ in
            var names = BrokenNames()
            let first = try Pair()
            var waiting = try WaitingClients()
            let name = names.add(first.server)
            names.remove(name)
            let next = try waiting.accept(number: name)
            _ = names.add(next.server)
            // A worker that still has something for the first client.
            try names.find(name)?.say("your password")
            let heard = try next.client.hear(13)
            withExtendedLifetime(next) {}
            return Observation(
                happened: heard == "your password",
                lines: [
                    "the first client's socket had number \(name); it left, and the next one's has it",
                    "what was sent to \(name) reached the next client: \"\(heard)\"",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let first = try Pair()
            let name = try stand.table.admit(first.server).id
            stand.table.registry.find(name)?.close()
            try stand.turn()
            var names: Set<ConnectionID> = [name]
            for _ in 1...200 {
                let pair = try Pair()
                names.insert(try stand.table.admit(pair.server).id)
                pair.client.close()
                try stand.turn()
            }
            let found = stand.table.registry.find(name)
            return Observation(
                happened: found != nil || names.count != 201 || !stand.finish(),
                lines: [
                    "the first client's name was \(name); it left, and 200 more came and went",
                    "names given: \(names.count); \(name) finds \(found == nil ? "nobody" : "somebody")",
                ])
        })
}
