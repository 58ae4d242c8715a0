import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Stage
import Testing

@testable import ManyPorts

@Suite("Chapter 12: placing", .serialized)
struct Chapter12ManyPortsPlacing {
    // I12.3
    @Test("in turn, by number, and by traffic")
    func values() {
        var turns = Placer(.roundRobin, ports: 3)
        #expect((0..<7).map { _ in turns.place() } == [0, 1, 2, 0, 1, 2, 0])
        #expect(turns.connections == [3, 2, 2])

        var fewest = Placer(.fewest, ports: 3)
        #expect((0..<4).map { _ in fewest.place() } == [0, 1, 2, 0])
        fewest.left(2)
        fewest.left(1)
        #expect((0..<3).map { _ in fewest.place() } == [1, 2, 1])
        fewest.moved(from: 0, to: 2)
        #expect(fewest.connections == [1, 2, 2] && fewest.place() == 0)
    }

    // I12.3
    @Test("those who come between two looks are not all sent to the same port")
    func herd() {
        var placer = Placer(.leastTraffic, ports: 2)
        for _ in 0..<10 { _ = placer.place() }
        #expect(placer.connections == [5, 5])
        // 1,000 on the first, nothing on the second: the mean of ten is 100, so ten newcomers are as much.
        placer.measured([1_000, 0])
        let places = (0..<14).map { _ in placer.place() }
        #expect(places.prefix(10).allSatisfy { $0 == 1 })
        #expect(places.suffix(4).count { $0 == 0 } == 2)
    }

    // I12.3
    @Test(
        "connections go to their ports as the placement says", arguments: DriverKind.permitted,
        Placement.allCases)
    func places(driver: DriverKind, placement: Placement) async throws {
        try await onAThread {
            let set = try makeSet(driver, ports: 3) { $0.placement = placement }
            let address = try set.hub.listen { _ in Echo() }
            var clients: [Socket] = []
            for number in 1...9 {
                clients.append(try Socket.connected(to: address))
                #expect(eventually { set.hub.connectionCount == number })
            }
            #expect(set.counters.ports.map(\.connections) == [3, 3, 3])
            for client in clients { #expect(client.isAnswered()) }
            for client in clients { try client.abort() }
            #expect(eventually { set.counters.ports.allSatisfy { $0.connections == 0 } })
            // What is over is still counted.
            #expect(set.counters.ports.allSatisfy { $0.packets == 6 && $0.bytes == 30 })
            #expect(set.stop())
        }
    }

    // I12.7
    @Test(
        "a client gets in while all workers of its port are busy, and is served when they are not",
        arguments: DriverKind.permitted, [0, 64])
    func busyPort(driver: DriverKind, firstData: Int) async throws {
        try await onAThread {
            let (busy, go) = (Gate(), Gate())
            defer { go.open() }
            let set = try makeSet(driver) {
                $0.streams.accepts.receiveLength = firstData
            }
            let opened = Counter()
            let address = try set.hub.listen { _ in Opened(opened) }
            // The only worker of port 1 is held.
            let blocker = PortHolder(busy, go)
            try set.ports[1].post(key: blocker.key)
            #expect(busy.pass())
            var clients: [Socket] = []
            for number in 1...6 {
                let client = try Socket.connected(to: address)
                if firstData > 0 { try client.say("first") }
                clients.append(client)
                #expect(eventually { opened.value == number })
            }
            #expect(set.counters.ports.map(\.connections) == [3, 3])
            // Those of port 0 are answered; the others when there is a worker.
            let word = firstData > 0 ? "" : "hello"
            let answer = firstData > 0 ? "first" : "hello"
            for client in clients { try client.say(word) }
            for client in stride(from: 0, to: 6, by: 2) {
                #expect(try clients[client].hear(answer.utf8.count) == answer)
            }
            go.open()
            for client in stride(from: 1, to: 6, by: 2) {
                #expect(try clients[client].hear(answer.utf8.count) == answer)
            }
            for client in clients { try client.abort() }
            #expect(set.stop())
        }
    }

    @Test("impossible options, and a connection that is not taken in")
    func options() async throws {
        try await onAThread {
            for wrong in [0, -1, 257] {
                #expect(throws: SystemError.invalid("")) { try makeSet(.epoll, ports: wrong) }
            }
            #expect(throws: SystemError.invalid("")) { try makeSet(.epoll, workersEach: 0) }
            #expect(throws: SystemError.invalid("")) { try makeSet(.epoll) { $0.balance.tolerance = 0 } }
            #expect(throws: SystemError.invalid("")) { try makeSet(.epoll) { $0.interval = .zero } }
            let set = try makeSet(.epoll, ports: 1) { $0.streams.maximumConnections = 1 }
            let (one, other) = (try Pair(), try Pair())
            try set.hub.adopt(one.server, handler: Echo())
            #expect(throws: SystemError(ENOBUFS, attempted: "")) {
                try set.hub.adopt(other.server, handler: Echo())
            }
            #expect(set.counters.ports.map(\.connections) == [1])
            #expect(set.stop())
            #expect(set.counters.ports.map(\.connections) == [0])
        }
    }

    @Test("nothing is left behind", arguments: DriverKind.permitted.map(\.rawValue))
    func nothingLeft(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = try #require(DriverKind(rawValue: driver))
            func round() throws -> Bool {
                let set = try makeSet(kind, ports: 4) { $0.interval = .milliseconds(10) }
                let address = try set.hub.listen { _ in Echo() }
                let clients = try (0..<20).map { _ in try Socket.connected(to: address) }
                let isHeard = clients.allSatisfy { $0.isAnswered() }
                for client in clients { try client.abort() }
                return isHeard && set.stop()
            }
            Resources.settle()
            var isRight = try round()
            let before = (Resources.openDescriptors, Resources.threads)
            for _ in 0..<5 { isRight = try round() && isRight }
            let isBack = eventually {
                Resources.openDescriptors <= before.0 && Resources.threads <= before.1
            }
            #expect(isRight && isBack, "\(before), then \((Resources.openDescriptors, Resources.threads))")
        }
    }
}

/// Counts those that stand, and echoes.
private final class Opened: StreamHandler {
    private let count: Counter
    init(_ count: Counter) { self.count = count }
    func opened(_ connection: StreamConnection) { count.add() }
    func received(_ chunk: Chunk, on connection: StreamConnection) { try? connection.send(chunk) }
}

/// Holds the worker that gets its packet.
private final class PortHolder: PacketOwner, @unchecked Sendable {
    private let (busy, go): (Gate, Gate)

    init(_ busy: Gate, _ go: Gate) { (self.busy, self.go) = (busy, go) }

    override func handle(_ packet: Packet, _ error: SystemError?) {
        busy.open()
        go.pass()
    }
}
