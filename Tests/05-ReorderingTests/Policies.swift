import Contexts
import Glibc
import Kernel
import Reordering
import ReorderingPitfalls
import Stage
import Testing

/// A policy for tests: so many buffers, a line, and a mode that can change. Chapter 07 has the real one.
private final class TestReceives: ReceivePolicy {
    enum Mode { case buffered, zeroByte }

    private struct State {
        var mode: Mode
        var free: Int
        var charged: Set<ObjectIdentifier> = []
        var lent: [ObjectIdentifier: UnsafeMutableRawBufferPointer] = [:]
        var line: [Chunk] = []
        var served: [Chunk] = []
        var isDue: Set<ObjectIdentifier> = []
        var mustCallOff = false

        mutating func refund(_ slot: Chunk) {
            guard charged.remove(ObjectIdentifier(slot)) != nil else { return }
            free += 1
            serve()
        }

        mutating func serve() {
            while free > 0, !line.isEmpty {
                free -= 1
                let slot = line.removeFirst()
                charged.insert(ObjectIdentifier(slot))
                isDue.insert(ObjectIdentifier(slot))
                served.append(slot)
            }
        }

        mutating func lend(_ slot: Chunk, _ size: Int) -> UnsafeMutableRawBufferPointer {
            if let buffer = lent[ObjectIdentifier(slot)] { return buffer }
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
            lent[ObjectIdentifier(slot)] = buffer
            return buffer
        }
    }

    private let state: Guarded<State>
    private let size: Int

    init(_ mode: Mode, buffers: Int = .max, size: Int = 64) {
        state = Guarded(State(mode: mode, free: buffers))
        self.size = size
    }

    var charged: Int { state.locked { $0.charged.count } }
    var lent: Int { state.locked { $0.lent.count } }
    var inLine: Int { state.locked { $0.line.count + $0.served.count } }

    func change(to mode: Mode) {
        state.locked {
            $0.mode = mode
            $0.mustCallOff = true
        }
    }

    func plan(_ slot: Chunk, _ need: ReceiveNeed) -> ReceivePlan {
        state.locked { state in
            let key = ObjectIdentifier(slot)
            if state.mode == .buffered {
                // A slot that has just been served does not stand aside for those behind it.
                let isServed = state.isDue.remove(key) != nil
                if state.charged.contains(key), isServed || state.line.isEmpty {
                    return .read(state.lend(slot, size))
                }
                state.refund(slot)
                if state.line.isEmpty, state.free > 0 {
                    state.free -= 1
                    state.charged.insert(key)
                    return .read(state.lend(slot, size))
                }
                guard need.posted == 0 else { return .enough }
                state.line.append(slot)
                return .later
            }
            if need.posted > 0 { return .enough }
            if need.isReadable {
                state.refund(slot)
                return .readNow(state.lend(slot, size))
            }
            return .wait
        }
    }

    func release(_ slot: Chunk) {
        state.locked { state in
            state.refund(slot)
            state.isDue.remove(ObjectIdentifier(slot))
            state.lent.removeValue(forKey: ObjectIdentifier(slot))?.deallocate()
        }
    }

    func withdraw(_ slot: Chunk) -> Bool {
        state.locked { state in
            guard let place = state.line.firstIndex(where: { $0 === slot }) else { return false }
            state.line.remove(at: place)
            return true
        }
    }

    func settle(_ connections: () -> [StreamConnection]) {
        let (served, mustCallOff) = state.locked { state in
            (exchange(&state.served, with: []), exchange(&state.mustCallOff, with: false))
        }
        for slot in served { slot.granted() }
        if mustCallOff { for connection in connections() { connection.reconsider() } }
    }
}

@Suite("Chapter 05: receives by a policy", .serialized)
struct Chapter05ReorderingPolicies {
    // I5.8, I5.9
    @Test(
        "without buffers every byte comes back, and an idle connection has no chunk",
        arguments: DriverKind.permitted)
    func zeroByte(driver: DriverKind) async throws {
        try await onAThread {
            for (workers, reads, size) in [(1, 1, 64), (2, 3, 5_000)] {
                let policy = TestReceives(.zeroByte, size: 512)
                let hub = try makeHub(driver, reads: reads, workers: workers, capacity: 4_096) {
                    $0.receives = policy
                }
                let address = try hub.listen { _ in Echo() }
                let idle = try (0..<20).map { _ in try Socket.connected(to: address) }
                #expect(eventually { hub.connectionCount == 20 && hub.counters.chunks.inUse == 0 })
                let report = try ClientLoad(
                    to: address, connections: 8, messageSize: size, duration: .seconds(30), roundTripsEach: 20
                ).run()
                #expect(report.roundTrips == 160)
                // Who has been idle is read from.
                for client in idle { #expect(client.isAnswered("hello")) }
                #expect(eventually { hub.counters.chunks.inUse == 0 && policy.lent == 0 })
                #expect(hub.counters.reads.reads == 0 && hub.counters.reads.waits > 0)
                #expect(hub.stop())
                #expect(hub.counters.window.mostWaiting <= reads)
            }
        }
    }

    // I5.8, I5.9, I5.10
    @Test(
        "the mode changes to and fro under load, with few buffers: every byte, and no charge is left",
        arguments: DriverKind.permitted)
    func changing(driver: DriverKind) async throws {
        try await onAThread {
            let policy = TestReceives(.buffered, buffers: 5, size: 300)
            let hub = try makeHub(driver, reads: 3, workers: 4, capacity: 1_024) { $0.receives = policy }
            let address = try hub.listen { _ in Echo() }
            let isOver = Guarded(false)
            let changer = startThread("changes") {
                var isBuffered = false
                while !isOver.locked({ $0 }) {
                    policy.change(to: isBuffered ? .buffered : .zeroByte)
                    policy.settle { hub.connections }
                    isBuffered.toggle()
                    usleep(1_000)
                }
                policy.change(to: .zeroByte)
                policy.settle { hub.connections }
            }
            let report = try ClientLoad(
                to: address, connections: 12, messageSize: 3_000, duration: .seconds(30),
                roundTripsEach: isSanitized ? 20 : 60
            ).run()
            isOver.locked { $0 = true }
            changer.join()
            #expect(report.roundTrips == 12 * (isSanitized ? 20 : 60))
            #expect(eventually { policy.charged == 0 && policy.lent == 0 && policy.inLine == 0 })
            #expect(hub.stop())
            #expect(policy.charged == 0 && policy.lent == 0 && policy.inLine == 0)
            #expect(hub.counters.chunks.inUse == 0)
            #expect(eventually { hub.counters.alive == 0 })
        }
    }

    // I5.10
    @Test(
        "64 streams take turns with 8 buffers, and close while others are in line",
        arguments: DriverKind.permitted)
    func line(driver: DriverKind) async throws {
        try await onAThread {
            let policy = TestReceives(.buffered, buffers: 8, size: 100)
            let hub = try makeHub(driver, reads: 2, workers: 3, capacity: 256) { $0.receives = policy }
            let address = try hub.listen { _ in Echo() }
            // Each ends when it has been answered, so its buffers go to the next in line.
            let clients = try (0..<64).map { _ in try Socket.connected(to: address) }
            for (index, client) in clients.enumerated() { try client.say(known(index, 400)) }
            let threads = clients.indices.map { index in
                startThread("client \(index)") {
                    let heard = (try? clients[index].hearBytes(400, within: .seconds(20))) ?? []
                    #expect(heard == known(index, 400))
                    clients[index].close()
                }
            }
            for thread in threads { thread.join() }
            #expect(eventually { hub.connectionCount == 0 && policy.charged == 0 })
            // And those that are ended by this side, in line and served.
            let others = try (0..<32).map { _ in try Socket.connected(to: address) }
            #expect(eventually { hub.connectionCount == 32 && policy.inLine > 0 })
            hub.disconnectAll(.abortive)
            #expect(eventually { hub.connectionCount == 0 })
            #expect(hub.stop())
            #expect(policy.charged == 0 && policy.lent == 0 && policy.inLine == 0)
            withExtendedLifetime(others) {}
        }
    }

    // I5.2, I5.9
    @Test(
        "a reset that ends a wait is a reset, behind the bytes in front of it",
        arguments: DriverKind.permitted)
    func resetBehindBytes(driver: DriverKind) async throws {
        try await onAThread {
            for front in ["", "bye."] {
                let pair = try Pair()
                let (isReadable, goOn) = (Gate(), Gate())
                var probe = StreamProbe()
                probe.readable = { _ in
                    isReadable.open()
                    goOn.pass()
                }
                let hub = try makeHub(driver, reads: 2) {
                    $0.receives = TestReceives(.zeroByte)
                    $0.probe = probe
                }
                let sink = Sink()
                try hub.adopt(pair.server, handler: sink)
                if !front.isEmpty { try pair.client.say(front) }
                try pair.client.setAbortiveClose()
                pair.client.close()
                #expect(isReadable.pass())
                goOn.open()
                #expect(sink.over.pass())
                #expect(text(sink.received) == front)
                // Not an end: what was received may be cut off.
                #expect(sink.reason == .reset && sink.receivedAtEnd == nil, "\(front)")
                #expect(hub.stop())
            }
        }
    }

    // I5.9
    @Test(
        "bytes that come while the handler is called are read without a second packet",
        arguments: DriverKind.permitted)
    func oneLook(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 1, workers: 1) {
                $0.receives = TestReceives(.zeroByte, size: 64)
            }
            let sink = Sink { chunk in
                guard chunk.number.value == 0 else { return }
                try? pair.client.say("two,")
                _ = eventually { pair.server.unread == 4 }
            }
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,")
            #expect(eventually { sink.received.count == 8 })
            #expect(text(sink.received) == "one,two,")
            #expect(hub.counters.reads.waits == 1 && hub.counters.reads.vainWaits == 0)
            #expect(hub.stop())
        }
    }

    // I5.11
    @Test("who keeps all it may have is not read from, not even waited for", arguments: DriverKind.permitted)
    func keepsAll(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 2) { $0.receives = TestReceives(.zeroByte, size: 4) }
            let kept = Guarded<[Chunk]>([])
            let sink = Sink { chunk in
                chunk.keep()
                kept.locked { $0.append(chunk) }
            }
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,two,six,")
            #expect(eventually { sink.received.count == 8 && pair.server.unread == 4 })
            let waits = hub.counters.reads.waits
            try pair.client.say("ten,")
            usleep(20_000)
            #expect(hub.counters.reads.waits == waits && hub.counters.chunks.inUse == 2)
            for chunk in kept.locked({ $0 }) { chunk.giveBack() }
            #expect(eventually { sink.received.count == 16 })
            #expect(text(sink.received) == "one,two,six,ten,")
            for chunk in kept.locked({ Array($0[2...]) }) { chunk.giveBack() }
            kept.locked { $0 = [] }
            #expect(hub.stop())
        }
    }
}
