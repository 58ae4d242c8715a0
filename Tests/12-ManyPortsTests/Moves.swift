import CompletionPorts
import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import ManyPorts
import ManyPortsPitfalls
import Stage
import Testing

@testable import Reordering

@Suite("Chapter 12: moves", .serialized)
struct Chapter12ManyPortsMoves {
    // I12.1
    @Test(
        "a handler is called by its port's worker, before a move and after it",
        arguments: DriverKind.permitted)
    func whoseWorker(driver: DriverKind) async throws {
        try await onAThread {
            let threads = Guarded<[Int32]>([])
            let set = try makeSet(driver)
            let pair = try Pair()
            let connection = try set.hub.adopt(
                pair.server, handler: Watcher { threads.locked { $0.append(Kernel.Thread.currentID) } })
            for round in 0..<20 {
                #expect(pair.client.isAnswered())
                try set.reassign(connection, to: 1 - round % 2)
                #expect(eventually { set.place(of: connection) == 1 - round % 2 })
            }
            let seen = threads.locked { $0 }
            #expect(seen.count >= 20 && Set(seen).count == 2)
            // Each port has one worker, so the calls go from one to the other and back.
            #expect(stride(from: 2, to: 20, by: 1).allSatisfy { seen[$0] == seen[$0 - 2] })
            #expect(set.stop())
        }
    }

    // I12.5
    @Test("a wait without a buffer is called off as well", arguments: DriverKind.permitted)
    func waits(driver: DriverKind) async throws {
        try await onAThread {
            let set = try makeSet(driver) { $0.streams.receives = Waiting() }
            let pair = try Pair()
            let connection = try set.hub.adopt(pair.server, handler: Echo())
            for round in 0..<50 {
                try set.reassign(connection, to: 1 - round % 2)
                if round % 2 == 0 { #expect(pair.client.isAnswered()) }
                #expect(eventually { set.place(of: connection) == 1 - round % 2 })
                #expect(pair.client.isAnswered())
            }
            #expect(set.counters.moves.made == 50)
            #expect(set.stop())
        }
    }

    // I12.5
    @Test(
        "sends that are pending hold a move up; after its time it is given up, and the connection reads on",
        arguments: DriverKind.permitted)
    func pendingSends(driver: DriverKind) async throws {
        try await onAThread {
            let set = try makeSet(driver) { $0.longestMove = .milliseconds(100) }
            let pair = try Pair()
            let heard = Counter()
            let connection = try set.hub.adopt(pair.server, handler: Watcher(echoes: false) { heard.add() })
            // More than both systems take: the last ones are pending until the client reads.
            let text = SharedBytes.zeros(16 << 20)
            try connection.send(text)
            #expect(eventually { connection.traffic.pendingSends == 1 })
            try set.reassign(connection, to: 1)
            #expect(throws: SystemError(EBUSY, attempted: "")) { try set.reassign(connection, to: 1) }
            #expect(eventually { set.counters.moves.givenUp == 1 })
            #expect(set.place(of: connection) == 0)
            try pair.client.say("still there")
            #expect(eventually { heard.value == 1 })
            // When it is read, a move succeeds.
            #expect(try pair.client.hearBytes(16 << 20).count == 16 << 20)
            try set.reassign(connection, to: 1)
            #expect(eventually { set.place(of: connection) == 1 })
            let moves = set.counters.moves
            #expect(
                moves.begun == 2 && moves.made == 1 && moves.givenUp == 1 && moves.refused == 1, "\(moves)")
            #expect(set.stop())
        }
    }

    @Test(
        "a connection that is closed while it is being moved ends once, and is not moved",
        arguments: DriverKind.permitted)
    func closedMeanwhile(driver: DriverKind) async throws {
        try await onAThread {
            let set = try makeSet(driver)
            for round in 0..<200 {
                let pair = try Pair()
                let ends = Counter()
                let handler = Watcher(closed: { ends.add() })
                let connection = try set.hub.adopt(pair.server, handler: handler)
                try pair.client.say("hello")
                let closer = startThread("closer") {
                    if round % 2 == 0 { connection.close() } else { try? pair.client.abort() }
                }
                try? set.reassign(connection, to: 1 - (set.place(of: connection) ?? 0))
                closer.join()
                #expect(eventually { ends.value == 1 })
            }
            #expect(set.stop())
            let counters = set.counters
            #expect(counters.moves.begun == counters.moves.made + counters.moves.givenUp)
            #expect(counters.ports.map(\.connections) == [0, 0] && set.hub.counters.chunks.inUse == 0)
        }
    }

    @Test("what cannot be moved is refused with a word")
    func refusals() async throws {
        try await onAThread {
            let set = try makeSet(.epoll)
            let pair = try Pair()
            let connection = try set.hub.adopt(pair.server, handler: Echo())
            #expect(throws: SystemError.invalid("")) { try set.reassign(connection, to: 2) }
            // Where it is already: nothing to do.
            try set.reassign(connection, to: 0)
            connection.stay()
            connection.stay()
            #expect(throws: SystemError(EBUSY, attempted: "")) { try set.reassign(connection, to: 1) }
            connection.mayGo()
            #expect(throws: SystemError(EBUSY, attempted: "")) { try set.reassign(connection, to: 1) }
            connection.mayGo()
            #expect(set.counters.moves.refused == 2 && set.counters.moves.begun == 0)
            try set.reassign(connection, to: 1)
            #expect(eventually { set.place(of: connection) == 1 })
            connection.close()
            #expect(eventually { set.hub.connectionCount == 0 })
            #expect(throws: SystemError.closed("")) { try set.reassign(connection, to: 0) }
            #expect(set.stop())
        }
    }

    // I12.5
    @Test(
        "while a file is under way its connection stays, and the counter says so",
        arguments: DriverKind.permitted)
    func fileUnderWay(driver: DriverKind) async throws {
        try await onAThread {
            let folder = "/tmp/many-ports-\(getpid())-\(driver)"
            #expect(mkdir(folder, 0o700) == 0)
            defer {
                unlink(folder + "/arrived")
                unlink(folder + "/source")
                rmdir(folder)
            }
            let source = try File(folder + "/source", for: .writing)
            let bytes = (0..<3 << 20).map(byte)
            #expect(pwrite(source.descriptor, bytes, bytes.count, 0) == bytes.count)
            source.close()
            let (offered, go) = (Gate(), Gate())
            defer { go.open() }
            var choices = TransferOptions(folder: folder)
            let held = Guarded<(@Sendable () -> Void)?>(nil)
            // Its sums are worked out when the test says so: until then the file is under way.
            choices.sums = { work in
                let isFirst = held.locked { held in
                    guard held == nil, !go.isOpen else { return false }
                    held = work
                    return true
                }
                if isFirst { offered.open() } else { work() }
            }
            let files = try FileService(choices)
            let receiver = FileTransfer(files)
            let framed = FramedConnection(TransferMessage.codec, handler: receiver)
            let set = try makeSet(driver)
            let pair = try Pair()
            let connection = try set.hub.adopt(pair.server, handler: framed)
            let outgoing = try FileService(TransferOptions())
            let client = try FramedService(TransferMessage.codec, round: outgoing.round)
            let sender = FileTransfer(outgoing)
            try client.adopt(pair.client, handler: sender)
            let transfer = startThread("sender") {
                _ = try? sender.sendAndWait(folder + "/source", as: "arrived")
            }
            #expect(offered.pass())
            #expect(throws: SystemError(EBUSY, attempted: "")) { try set.reassign(connection, to: 1) }
            #expect(set.counters.moves.refused == 1 && set.place(of: connection) == 0)
            go.open()
            // Taken out: the work refers to the service, and the service to this place.
            held.locked { $0.take() }?()
            transfer.join()
            let arrived = try File(folder + "/arrived")
            #expect(try arrived.size == Int64(bytes.count))
            arrived.close()
            #expect(
                eventually {
                    try? set.reassign(connection, to: 1)
                    return set.place(of: connection) == 1
                })
            client.stop()
            #expect(set.stop())
        }
    }
}

/// Counts its calls, and echoes.
private final class Watcher: StreamHandler {
    private let echoes: Bool
    private let called: @Sendable () -> Void
    private let over: @Sendable () -> Void

    init(
        echoes: Bool = true, called: @escaping @Sendable () -> Void = {},
        closed: @escaping @Sendable () -> Void = {}
    ) {
        (self.echoes, self.called, over) = (echoes, called, closed)
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        called()
        if echoes { try? connection.send(chunk) }
    }

    func closed(_ connection: StreamConnection, _ reason: CloseReason) { over() }
}

/// A policy without a budget: waits without a buffer, and reads at once when there is something.
private final class Waiting: ReceivePolicy {
    func plan(_ slot: Chunk, _ need: ReceiveNeed) -> ReceivePlan {
        need.isReadable ? .readNow(slot.memory) : .wait
    }

    func release(_ slot: Chunk) {}
}

extension SharedBytes {
    fileprivate static func zeros(_ count: Int) -> SharedBytes {
        [UInt8](repeating: 0, count: count).withUnsafeBytes { SharedBytes($0) }
    }
}
