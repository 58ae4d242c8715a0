import Contexts
import Glibc
import Kernel
import Reordering
import ReorderingPitfalls
import Stage
import Testing

@Suite("Chapter 05: who comes in, and how it ends", .serialized)
struct Chapter05ReorderingService {
    // I5.1, I5.2
    @Test(
        "first data comes in as many chunks as it needs, before anything else, after `opened`",
        arguments: DriverKind.permitted)
    func firstData(driver: DriverKind) async throws {
        try await onAThread {
            // The handler pauses and resumes before the first data has its numbers: that must not post a read.
            let handler = Eager()
            let hub = try makeHub(driver, reads: 3) { $0.accepts.receiveLength = 12 }
            let address = try hub.listen { _ in handler }
            let client = try Socket.connected(to: address)
            try client.say("one,two,six,ten,end.")
            #expect(eventually { handler.sink.received.count == 20 })
            #expect(text(handler.sink.received) == "one,two,six,ten,end.")
            #expect(handler.receivedWhenOpened == 0)
            #expect(hub.stop())
            #expect(hub.counters.chunks.inUse == 0)
        }
        #expect(throws: SystemError(EINVAL, attempted: "")) {
            try makeHub(driver, reads: 3) { $0.accepts.receiveLength = 13 }
        }
    }

    @Test(
        "addresses are known on either side, and stay when the connection is gone",
        arguments: DriverKind.permitted)
    func addresses(driver: DriverKind) async throws {
        try await onAThread {
            for loopback in Address.loopbacks {
                let hub = try makeHub(driver, reads: 2)
                let taken = Guarded<StreamConnection?>(nil)
                let asked = Guarded<(remote: Address?, local: Address?)>((nil, nil))
                let address = try hub.listen(
                    on: loopback,
                    admit: { remote, local in
                        asked.locked { $0 = (remote, local) }
                        return .welcome
                    },
                    handler: { connection in
                        taken.locked { $0 = connection }
                        return Echo()
                    })
                let client = Scripted()
                let connection = try hub.connect(to: address, handler: client)
                #expect(connection.remoteAddress == address)
                #expect(eventually { client.events == ["opened"] && taken.locked { $0 } != nil })
                let server = try #require(taken.locked { $0 })
                connection.disconnect(.abortive)
                #expect(eventually { hub.counters.announced == 2 })
                #expect(connection.localAddress != nil && connection.localAddress?.port != 0)
                #expect(server.remoteAddress == connection.localAddress)
                #expect(server.localAddress == address)
                #expect(asked.locked { $0.remote } == connection.localAddress)
                #expect(asked.locked { $0.local } == address)
                #expect(hub.stop())
            }
        }
    }

    @Test(
        "who is refused hears why, also when it has sent before it reads, and no handler is made",
        arguments: DriverKind.permitted)
    func refusedInWords(driver: DriverKind) async throws {
        try await onAThread {
            let made = Counter()
            let hub = try makeHub(driver, reads: 2, capacity: 4_096)
            let address = try hub.listen(admit: { _, _ in .refuse(Array("not today".utf8)) }) { _ in
                made.add()
                return Echo()
            }
            let client = try Socket.connected(to: address)
            try client.say([UInt8](repeating: 1, count: 10_000))
            // The words are not lost to a reset: they are there behind all that was sent.
            #expect(eventually { client.unread == 9 })
            #expect(text(try client.hearBytes(100)) == "not today")
            client.close()
            // One that goes on sending is not listened to for ever.
            let flooder = try Socket.connected(to: address)
            let began = monotonicNanoseconds()
            var isReset = false
            while !isReset, monotonicNanoseconds() - began < 5_000_000_000 {
                isReset = (try? flooder.say([UInt8](repeating: 1, count: 1_000))) == nil
            }
            #expect(isReset)
            #expect(eventually { hub.counters.chunks.inUse == 0 })
            let counters = hub.counters
            #expect(counters.declined == 2 && counters.dropped == 0 && counters.opened == 0)
            #expect(made.value == 0)
            #expect(hub.stop())
        }
    }

    @Test(
        "so many are told why at a time, each for a second; more are reset", arguments: DriverKind.permitted)
    func partings(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 1, capacity: 64)
            let address = try hub.listen(admit: { _, _ in .refuse(Array("no".utf8)) }) { _ in Echo() }
            // They hear, and do not leave.
            let clients = (0..<70).compactMap { _ in try? Socket.connected(to: address) }
            #expect(eventually { hub.counters.declined + hub.counters.dropped == 70 })
            #expect(hub.counters.declined >= 64)
            // The reset may be quicker than the connect.
            var (told, reset) = (0, 70 - clients.count)
            for client in clients {
                do {
                    if text(try client.hearBytes(3)) == "no" { told += 1 }
                } catch { reset += 1 }
            }
            #expect(told == hub.counters.declined && reset == hub.counters.dropped)
            // A second later they are let go of, whatever they do.
            #expect(eventually { hub.counters.chunks.inUse == 0 })
            #expect(hub.stop())
        }
    }

    @Test("who is dropped is reset, and others come in", arguments: DriverKind.permitted)
    func dropped(driver: DriverKind) async throws {
        try await onAThread {
            let isFull = Guarded(true)
            let hub = try makeHub(driver, reads: 1)
            let address = try hub.listen(admit: { _, _ in isFull.locked { $0 } ? .drop : .welcome }) { _ in
                Echo()
            }
            // The reset may be quicker than the connect.
            #expect(throws: SystemError(ECONNRESET, attempted: "")) {
                try Socket.connected(to: address).hearBytes(1)
            }
            #expect(hub.counters.dropped == 1)
            isFull.locked { $0 = false }
            #expect(try Socket.connected(to: address).isAnswered("hell"))
            #expect(hub.stop())
        }
    }

    @Test("a client too many makes no handler", arguments: DriverKind.permitted)
    func tooManyMakeNoHandler(driver: DriverKind) async throws {
        try await onAThread {
            let made = Counter()
            let hub = try makeHub(driver, reads: 1) { $0.maximumConnections = 1 }
            let address = try hub.listen { _ in
                made.add()
                return Echo()
            }
            let first = try Socket.connected(to: address)
            #expect(first.isAnswered("hell"))
            let second = try Socket.connected(to: address)
            #expect((try? second.hearBytes(1))?.isEmpty ?? true)
            #expect(made.value == 1 && hub.counters.refused == 1 && hub.connectionCount == 1)
            #expect(hub.stop())
        }
    }

    @Test("a connect that is not answered ends in time, from wherever", arguments: DriverKind.permitted)
    func connectLimit(driver: DriverKind) async throws {
        try await onAThread {
            // It listens and accepts nothing, and what waits to be accepted is full: it does not answer.
            let listener = try Socket.listener(on: .loopback(), backlog: 0)
            let address = try listener.localAddress
            let hub = try makeHub(driver, reads: 1)
            var silent: [Scripted] = []
            let began = monotonicNanoseconds()
            for _ in 0..<4 {
                let handler = Scripted()
                silent.append(handler)
                try hub.connect(to: address, within: .milliseconds(300), handler: handler)
            }
            #expect(eventually { silent.contains { $0.events == ["closed: \(CloseReason.reset)"] } })
            #expect(monotonicNanoseconds() - began >= 300_000_000)
            // The first one stands: its limit is over with the connect.
            #expect(silent.contains { $0.events == ["opened"] })
            listener.close()
            // From an address of one's own choice.
            let other = try hub.listen { _ in Echo() }
            let handler = Scripted()
            let connection = try hub.connect(to: other, from: Address("127.0.0.2", port: 0), handler: handler)
            #expect(eventually { handler.events == ["opened"] })
            #expect(connection.localAddress?.host == "127.0.0.2")
            #expect(hub.stop())
        }
    }

    // I5.11
    @Test("what is paused is not read, and not lost; two reasons are two", arguments: DriverKind.permitted)
    func pausing(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 2)
            let sink = Sink()
            let connection = try hub.adopt(pair.server, handler: sink)
            connection.pauseReading()
            connection.pauseReading(.sends)
            // Two reads are posted already.
            try pair.client.say("one,two,six,ten,end.")
            #expect(eventually { sink.received.count == 8 && pair.server.unread == 12 })
            connection.resumeReading()
            usleep(50_000)
            #expect(sink.received.count == 8 && hub.counters.chunks.inUse == 0)
            connection.resumeReading(.sends)
            #expect(eventually { sink.received.count == 20 })
            #expect(text(sink.received) == "one,two,six,ten,end.")
            // A handler pauses in its own call, and another thread resumes.
            connection.pauseReading()
            try pair.client.say(known(0, 1_000))
            for _ in 0..<500 {
                connection.resumeReading()
                connection.pauseReading()
            }
            connection.resumeReading()
            #expect(eventually { sink.received.count == 1_020 })
            #expect(Array(sink.received[20...]) == known(0, 1_000))
            connection.pauseReading()
            #expect(hub.stop())
            #expect(hub.counters.chunks.inUse == 0)
        }
    }

    @Test("what has gone through is counted, for each and for all", arguments: DriverKind.permitted)
    func traffic(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 2)
            let address = try hub.listen { _ in Echo() }
            let before = monotonicNanoseconds()
            let clients = try (0..<3).map { _ in try Socket.connected(to: address) }
            for client in clients {
                try client.say("one,two,")
                #expect(try client.hearBytes(8).count == 8)
            }
            #expect(eventually { hub.counters.traffic.bytesSent == 24 })
            #expect(hub.connectionCount == 3 && hub.counters.connections == 3)
            let one = try #require(hub.connections.first).traffic
            #expect(one.bytesReceived == 8 && one.bytesSent == 8 && one.chunksReceived >= 2 && one.sends >= 2)
            #expect(one.since >= before && one.pendingSends == 0)
            // The coarse clock may be some milliseconds behind.
            #expect(one.heard + 20_000_000 >= one.since && one.heard <= monotonicNanoseconds())
            clients[0].close()
            #expect(eventually { hub.connectionCount == 2 })
            #expect(hub.counters.traffic.bytesReceived == 24 && hub.counters.traffic.bytesSent == 24)
            // Who does not read is seen.
            let connection = hub.connections[0]
            for _ in 0..<4 { _ = try? connection.takeTicket() }
            #expect(connection.traffic.pendingSends == 4 && hub.counters.traffic.pendingSends == 0)
            #expect(hub.stop())
            #expect(hub.connectionCount == 0 && hub.counters.traffic.bytesSent == 24)
            #expect(hub.counters.reads.reads >= 6)
        }
    }

    @Test(
        "an abortive end is a reset; a graceful one sends first, and has a limit",
        arguments: DriverKind.permitted)
    func endings(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 2, capacity: 65_536)
            let pairs = try Pair.several(3)
            let sinks = pairs.map { _ in Sink() }
            let connections = try zip(pairs, sinks).map { try hub.adopt($0.server, handler: $1) }
            connections[0].disconnect(.abortive)
            #expect(throws: SystemError(ECONNRESET, attempted: "")) { try pairs[0].client.hearBytes(1) }
            // What is still to be sent is sent, and the end comes behind it.
            for connection in connections[1...] {
                try connection.send(known(0, 1 << 20))
                connection.disconnect(.graceful(within: .milliseconds(300)))
                #expect(throws: SystemError(ESHUTDOWN, attempted: "")) { try connection.send([1]) }
            }
            #expect(try pairs[1].client.hearBytes(2 << 20) == known(0, 1 << 20))
            pairs[1].client.close()
            #expect(sinks[1].over.pass() && sinks[1].reason == .ended)
            // One that does not read and does not end is closed.
            #expect(sinks[2].over.pass() && sinks[2].reason == .cancelled)
            #expect(hub.stop())
            #expect(hub.counters.chunks.inUse == 0)
        }
    }

    @Test("all are ended, and the hub goes on listening", arguments: DriverKind.permitted)
    func endAll(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 1)
            let address = try hub.listen { _ in Echo() }
            let clients = try (0..<10).map { _ in try Socket.connected(to: address) }
            for client in clients { #expect(client.isAnswered("hell")) }
            hub.disconnectAll(.abortive)
            for client in clients { #expect(throws: SystemError.self) { try client.hearBytes(1) } }
            #expect(eventually { hub.connectionCount == 0 })
            #expect(try Socket.connected(to: address).isAnswered("hell"))
            #expect(hub.stop())
        }
    }

    @Test(
        "the same bytes go to all, with one copy; who does not read costs no more",
        arguments: DriverKind.permitted)
    func sendToAll(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 1, capacity: 16) { $0.maximumPendingSends = 2 }
            let pairs = try Pair.several(20)
            for pair in pairs { try hub.adopt(pair.server, handler: Sink()) }
            // More than the limit of pieces would let through as a copy for each.
            let news = known(7, 100_000)
            #expect(news.withUnsafeBytes { hub.sendToAll($0) } == (20, 0))
            for pair in pairs { #expect(try pair.client.hearBytes(100_000) == news) }
            #expect(eventually { hub.counters.chunks.inUse == 20 })
            // One has no room for more.
            let busy = hub.connections[0]
            for _ in 0..<2 { _ = try busy.takeTicket() }
            #expect([1, 2].withUnsafeBytes { hub.sendToAll($0) } == (19, 1))
            #expect(hub.stop())
            #expect(hub.counters.chunks.inUse == 0)
        }
    }

    @Test(
        "a stop with grace lets go out what was accepted; without, it does not wait",
        arguments: DriverKind.permitted)
    func stopWithGrace(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try makeHub(driver, reads: 1, capacity: 65_536)
            let pair = try Pair()
            let connection = try hub.adopt(pair.server, handler: Sink())
            try pair.server.setBufferSizes(send: 4_096)
            try connection.send(known(0, 1 << 20))
            let heard = Guarded<[UInt8]>([])
            let reader = startThread("slow reader") {
                usleep(100_000)
                let bytes = (try? pair.client.hearBytes(2 << 20)) ?? []
                heard.locked { $0 = bytes }
                pair.client.close()
            }
            #expect(hub.stop(within: .seconds(10)))
            reader.join()
            #expect(heard.locked { $0 } == known(0, 1 << 20))
            // Who never reads does not hold the stop up for longer.
            let other = try makeHub(driver, reads: 1, capacity: 65_536)
            let silent = try Pair()
            let stuck = try other.adopt(silent.server, handler: Sink())
            try stuck.send(known(0, 4 << 20))
            #expect(other.stop(within: .milliseconds(200)))
            #expect(stuck.closeReason == .cancelled)
        }
    }

    // I5.5
    @Test("a chunk that is kept is not refilled", arguments: DriverKind.permitted)
    func keptIsNotRefilled(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 1)
            let kept = Guarded<Chunk?>(nil)
            let answers = Guarded<[Bool]>([])
            let sink = Sink { chunk in
                chunk.keep()
                let first = Array("new".utf8).withUnsafeBytes { chunk.refill($0) }
                let old = text(Array(chunk.contents))
                chunk.giveBack()
                let tooMuch = Array("newer".utf8).withUnsafeBytes { chunk.refill($0) }
                let second = Array("new".utf8).withUnsafeBytes { chunk.refill($0) }
                answers.locked { $0 = [first, old == "one,", tooMuch, second] }
                kept.locked { $0 = chunk }
            }
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,")
            #expect(eventually { sink.received.count == 3 })
            #expect(answers.locked { $0 } == [false, true, false, true])
            kept.locked { $0 = nil }
            #expect(hub.stop())
        }
    }

    // I5.7
    @Test("a stop waits for a chunk that a handler keeps", arguments: DriverKind.permitted)
    func stopWaitsForKept(driver: DriverKind) async throws {
        try await onAThread {
            let pair = try Pair()
            let hub = try makeHub(driver, reads: 1)
            let kept = Guarded<Chunk?>(nil)
            let sink = Sink { chunk in
                chunk.keep()
                kept.locked { $0 = chunk }
            }
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,")
            #expect(eventually { sink.received.count == 4 })
            let (isStopped, isClean) = (Gate(), Guarded(false))
            let stopper = startThread("stop") {
                let clean = hub.stop()
                isClean.locked { $0 = clean }
                isStopped.open()
            }
            #expect(sink.over.pass())
            #expect(!isStopped.pass(within: .milliseconds(300)))
            #expect(kept.locked { $0.map { text(Array($0.contents)) } } == "one,")
            kept.locked { $0.take() }?.giveBack()
            #expect(isStopped.pass())
            stopper.join()
            #expect(isClean.locked { $0 } && hub.counters.chunks.inUse == 0)
        }
    }

    // I5.2
    @Test(
        "a stream that never runs dry leaves the only worker to others in between",
        arguments: DriverKind.permitted)
    func neverDry(driver: DriverKind) async throws {
        let stream = try Pair()
        let bytes = [UInt8](repeating: 7, count: 64 << 10)
        try await othersComeBetween(driver, stream) {
            // There is always more: what has been read makes room for it.
            while (try? bytes.withUnsafeBytes { try stream.client.sendNow($0) }) ?? nil != nil {}
        }
    }

    // I5.2
    @Test(
        "a handler that sends whenever a send is over leaves the only worker to others in between",
        arguments: DriverKind.permitted)
    func alwaysSending(driver: DriverKind) async throws {
        let stream = try Pair()
        try await othersComeBetween(driver, stream) {
            // There is always room: what has been sent is read.
            var bytes = [UInt8](repeating: 0, count: 4096)
            while bytes.withUnsafeMutableBytes({ (try? stream.client.receiveNow(into: $0)) ?? 0 }) > 0 {}
        }
    }

    /// The handler of `stream` is called again and again, and each time it sends, is to be told of it, and does `refill`. It
    /// goes on until another client, which has sent something meanwhile, has been heard by the same worker.
    private func othersComeBetween(
        _ driver: DriverKind, _ stream: Pair, _ refill: @escaping @Sendable () -> Void
    ) async throws {
        try await onAThread {
            let other = try Pair()
            let hub = try makeHub(driver, reads: 3, workers: 1, capacity: 4096) {
                $0.maximumReadSize = 256 << 10
            }
            let isHeard = Gate()
            let end = Deadline.after(.seconds(10))
            let busy = Busy { calls in
                refill()
                if calls == 20 { _ = try? [1].withUnsafeBytes { try other.client.sendNow($0) } }
                return !isHeard.isOpen && !end.hasPassed
            }
            let heardAfter = Guarded<Int?>(nil)
            let sink = Sink { _ in
                heardAfter.locked { $0 = end.hasPassed ? nil : busy.calls }
                isHeard.open()
            }
            try hub.adopt(other.server, handler: sink)
            try hub.adopt(stream.server, handler: busy)
            try stream.client.say("begin")
            #expect(isHeard.pass())
            #expect(hub.stop())
            let calls = try #require(heardAfter.locked { $0 }, "only when the stream had stopped")
            // Over io_uring it is the system that says when the other's bytes have been received.
            #expect(driver == .ioUring || calls < 100)
        }
    }
}

/// Sends whenever it is called, until it is told to stop.
private final class Busy: StreamHandler {
    private let count = Guarded(0)
    private let goesOn: @Sendable (Int) -> Bool
    var calls: Int { count.locked { $0 } }

    init(_ goesOn: @escaping @Sendable (Int) -> Bool) { self.goesOn = goesOn }

    func received(_ chunk: Chunk, on connection: StreamConnection) { called(connection) }
    func sent(_ token: Int, on connection: StreamConnection) { called(connection) }

    private func called(_ connection: StreamConnection) {
        let calls = count.locked { count in
            count += 1
            return count
        }
        if goesOn(calls) { try? connection.send([1], token: 1) }
    }
}

/// Pauses and resumes in `opened`, and notes what had been received by then.
private final class Eager: StreamHandler {
    let sink = Sink()
    private let atOpened = Guarded(-1)
    var receivedWhenOpened: Int { atOpened.locked { $0 } }

    func opened(_ connection: StreamConnection) {
        connection.pauseReading()
        connection.resumeReading()
        let count = sink.received.count
        atOpened.locked { $0 = count }
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) { sink.received(chunk, on: connection) }
}
