import CompletionPorts
import Contexts
import Glibc
import Kernel
import ManyPorts
import ManyPortsPitfalls
import Reordering
import Stage
import Testing

@Suite("Chapter 12: what does not go wrong any more", .serialized)
struct Chapter12ManyPortsFixes {
    // I12.1
    @Test(
        "one-port-contention: with a port each, three workers go on while the fourth is held",
        arguments: DriverKind.permitted)
    func onePortContention(driver: DriverKind) async throws {
        try await holds(OnePortContention.pitfall, driver)
    }

    // I12.4
    @Test(
        "unbalanced-ports: after one look half of the packets are on each port",
        arguments: DriverKind.permitted)
    func unbalancedPorts(driver: DriverKind) async throws { try await holds(UnbalancedPorts.pitfall, driver) }

    // I12.6
    @Test(
        "moved-with-packet-queued: the connection leaves when the packet has been handled",
        arguments: DriverKind.permitted)
    func movedWithPacketQueued(driver: DriverKind) async throws {
        try await holds(MovedWithPacketQueued.pitfall, driver)
    }

    // I12.5: and with several workers each, chapter 05 puts the bytes in order as ever.
    @Test(
        "unbalanced-ports, moved-with-packet-queued: 1,000 forced moves under load, numbered bytes all in their places",
        arguments: DriverKind.permitted, [1, 2])
    func thousandMoves(driver: DriverKind, workersEach: Int) async throws {
        try await onAThread {
            let (ports, wanted) = (3, isSanitized ? 200 : 1_000)
            let turns = Guarded<[ConnectionID: Int]>([:])
            let wrongTurns = Counter()
            let set = try makeSet(driver, ports: ports, workersEach: workersEach) {
                $0.streams.pendingReads = 4
                $0.streams.chunkCapacity = 512
                $0.longestMove = .seconds(30)
                $0.moved = { connection, from, to in
                    // Each move begins where the last one ended.
                    let former = turns.locked { $0.updateValue(to, forKey: connection.id) }
                    if former.map({ $0 != from }) ?? false { wrongTurns.add() }
                }
            }
            let isOver = Gate()
            var clients: [Streamer] = []
            for _ in 0..<3 {
                let pair = try Pair()
                try set.hub.adopt(pair.server, handler: Echo())
                clients.append(Streamer(pair.client))
            }
            for client in clients { client.start { isOver.isOpen } }
            var generator = SeededGenerator(seed: 12)
            let limit = Deadline.after(.seconds(45))
            while set.counters.moves.made < wanted, !limit.hasPassed {
                for connection in set.hub.connections {
                    try? set.reassign(connection, to: Int.random(in: 0..<ports, using: &generator))
                }
                usleep(200)
            }
            isOver.open()
            let isWhole = clients.map { $0.finish() }
            let moves = set.counters.moves
            #expect(isWhole == [true, true, true], "\(clients.map(\.wrongAt))")
            #expect(moves.made >= wanted && wrongTurns.value == 0, "\(moves)")
            #expect(set.stop())
            let counters = set.counters
            #expect(counters.moves.made + counters.moves.givenUp == counters.moves.begun, "\(counters.moves)")
            #expect(counters.ports.allSatisfy { $0.connections == 0 && $0.packets > 0 })
        }
    }

    // I12.6
    @Test(
        "moved-with-packet-queued: bytes that come between the rest and the move are received on the new port",
        arguments: DriverKind.permitted)
    func dataInBetween(driver: DriverKind) async throws {
        try await onAThread {
            let (atRest, go, moved) = (Gate(), Gate(), Gate())
            defer { go.open() }
            let set = try makeSet(driver) {
                $0.streams.pendingReads = 4
                $0.beforeMove = { _ in
                    atRest.open()
                    go.pass()
                }
                $0.moved = { _, _, _ in moved.open() }
            }
            let pair = try Pair()
            let connection = try set.hub.adopt(pair.server, handler: Echo())
            #expect(pair.client.isAnswered("before"))
            // It waits for the gate with the connection's lock: not on this thread.
            let mover = startThread("mover") { try? set.reassign(connection, to: 1) }
            #expect(atRest.pass())
            try pair.client.say("between")
            #expect(try pair.client.hear(7, within: .milliseconds(50)) == "")
            go.open()
            #expect(moved.pass())
            #expect(try pair.client.hear(7) == "between")
            mover.join()
            #expect(set.place(of: connection) == 1 && connection.port === set.ports[1])
            pair.client.close()
            #expect(set.stop())
        }
    }
}
