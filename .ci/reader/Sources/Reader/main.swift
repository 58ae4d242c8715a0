import Contexts
import Glibc
import Kernel
import Reordering

/// What the program does with each client: it sends everything back.
final class Parrot: StreamHandler {
    func opened(_ connection: StreamConnection) {
        say("\(connection.id) has come")
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        // It is sent without being copied; what cannot be sent ends the connection.
        if (try? connection.send(chunk)) == nil { connection.close() }
    }

    func closed(_ connection: StreamConnection, _ reason: CloseReason) {
        say("\(connection.id) has gone: \(reason)")
    }
}

func say(_ line: String) {
    _ = (line + "\n").withCString { write(STDOUT_FILENO, $0, strlen($0)) }
}

var options = StreamHub.Options()
options.workers = 2
options.maximumConnections = 1_000

let hub = try StreamHub(options)
let address = try hub.listen(on: .loopback()) { _ in Parrot() }
say("listening on \(address)")

// Return ends it.
_ = readLine()
let isClean = hub.stop()
say("\(hub.counters.opened) clients, \(hub.counters.alive) left")
exit(isClean ? 0 : 1)
