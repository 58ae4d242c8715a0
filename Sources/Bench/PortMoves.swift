import Glibc
import Kernel
import ManyPorts
import ManyPortsPitfalls
import Reordering
import Stage

/// Connections that are moved all the time, between four ports with one worker and with two, while they talk: every byte is
/// compared (chapter 12).
enum PortMoves {
    private static let moves = 20_000

    @Sendable static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        for driver in DriverKind.permitted {
            for workers in [1, 2] { holds = try run(terminal, driver, workers) && holds }
        }
        return holds
    }

    private static func run(_ terminal: Terminal, _ driver: DriverKind, _ workers: Int) throws -> Bool {
        var options = PortSet.Options()
        (options.ports, options.workersEach, options.interval) = (4, workers, nil)
        (options.streams.pendingReads, options.streams.port.driver) = (4, driver)
        let set = try PortSet(options)
        let isOver = Gate()
        var clients: [Streamer] = []
        for _ in 0..<8 {
            let pair = try Pair()
            try set.hub.adopt(pair.server, handler: Reordering.Echo())
            clients.append(Streamer(pair.client))
        }
        let start = monotonicNanoseconds()
        let limit = Deadline.after(.seconds(120))
        for client in clients { client.start { isOver.isOpen } }
        var turn = 0
        while set.counters.moves.made < moves, !limit.hasPassed {
            // To another one each time, whatever the order of the connections.
            turn += 1
            for connection in set.hub.connections {
                let place = set.place(of: connection) ?? 0
                try? set.reassign(connection, to: (place + 1 + turn % 3) % 4)
            }
            usleep(100)
        }
        isOver.open()
        let isWhole = clients.map { $0.finish() }.allSatisfy { $0 }
        let seconds = Double(monotonicNanoseconds() - start) / 1e9
        let isClean = set.stop()
        let counters = set.counters
        terminal.say(
            "\(driver), \(counted(workers, "worker")) each: \(readable(counters.moves.made)) moves in "
                + "\(readable(seconds)) s, \(readable(clients.reduce(0) { $0 + $1.heard })) bytes, "
                + (isWhole ? "every one in its place" : "WRONG BYTES"))
        return isWhole && isClean && counters.moves.made >= moves
            && counters.moves.begun == counters.moves.made + counters.moves.givenUp
    }
}
