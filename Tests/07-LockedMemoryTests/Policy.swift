import Glibc
import Kernel
import LockedMemory
import Reordering
import Stage
import Testing

/// The same numbers for the same seed.
private struct Chance {
    var state: UInt64

    mutating func callAsFunction(_ bound: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33) % bound
    }
}

@Suite("Chapter 07: the policy of receives, without a socket")
struct Chapter07LockedMemoryPolicy {
    typealias Choice = BudgetedReceives.Choice

    static let adaptive = Choice.adaptive(ReceiveThresholds(zeroByteFrom: 8, bufferedUpTo: 4))

    // I7.5, I5.8, I7.2
    @Test(
        "a change of mode asks for every posted buffer, and for the place in the line; what is held stays charged",
        arguments: [1, 2, 8])
    func changeWithPosted(reads: Int) throws {
        let thresholds = ReceiveThresholds(zeroByteFrom: 3, bufferedUpTo: 1)
        let service = try ScriptedService(.adaptive(thresholds), pages: 64)
        let (one, two) = (service.open(reads: reads), service.open(reads: reads))
        #expect(one.postedReads == reads && two.postedReads == reads)
        // One slot is with its handler, and stays there.
        one.handling = .held
        one.arrive(100)
        service.run()
        #expect(one.held.count == 1 && service.locked == 2 * reads)
        let third = service.open(reads: reads)
        #expect(service.policy.mode == .zeroByte)
        service.run()
        #expect(service.locked == 1, "only what is held")
        #expect(one.postedReads + two.postedReads + third.postedReads == 0)
        #expect(two.isWaiting && third.isWaiting)
        // With one slot only, and that one held, its connection is not read from. (I5.5)
        #expect(one.isWaiting == (reads > 1))
        one.handling = .done
        one.letGo(0)
        service.run()
        #expect(service.locked == 0 && one.isWaiting)
        // None was closed, and every byte comes.
        for connection in service.connections { connection.arrive(10_000) }
        service.run()
        #expect(one.delivered == 10_100 && two.delivered == 10_000 && third.delivered == 10_000)
        #expect(service.policy.changesMade == (1, 0))
        service.end()
    }

    // I7.5, I5.8
    @Test("a read that was quicker than the cancel brings its bytes, in their place among the gaps")
    func quickerThanCancel() throws {
        let service = try ScriptedService(
            .adaptive(ReceiveThresholds(zeroByteFrom: 2, bufferedUpTo: 1)), pages: 64)
        let one = service.open(reads: 4)
        one.arrive(Page.size + 10)
        // Two reads have completed, and their packets wait; the other two are cancelled.
        #expect(one.packets.count == 2)
        service.open()
        #expect(one.packets.count == 4)
        // The packets come to workers in the wrong order.
        service.run { $0 - 1 }
        #expect(one.delivered == Page.size + 10)
        #expect(one.isWaiting && service.locked == 0)
        service.end()
    }

    // I7.5, I7.2
    @Test("pages that come from the line after the mode has changed lock nothing")
    func grantCrossesChange() throws {
        let service = try ScriptedService(
            .adaptive(ReceiveThresholds(zeroByteFrom: 3, bufferedUpTo: 1)), pages: 4)
        let one = service.open(reads: 1)
        #expect(service.locked == 1)
        // The policy's own line, as an adaptive one has it for buffers only: a slot that was granted is asked again.
        let claim = SlotClaim {}
        guard case .read = service.policy.plan(claim, ReceiveNeed()) else { return #expect(Bool(false)) }
        claim.budgetCame()
        service.open()
        service.open()
        #expect(service.policy.mode == .zeroByte)
        guard case .wait = service.policy.plan(claim, ReceiveNeed()) else { return #expect(Bool(false)) }
        #expect(!claim.isCharged && claim.buffer == nil)
        service.run()
        #expect(service.locked == 0 && one.isWaiting)
        service.end()
    }

    // I7.3
    @Test("a connection is in the line with one slot, and only when none is posted; no connection overtakes")
    func oneInLine() throws {
        let service = try ScriptedService(.buffered, pages: 3)
        let clients = (0..<5).map { _ in service.open(reads: 2) }
        // The first has two, the second one: its second read is not worth waiting for.
        #expect(clients.map(\.postedReads) == [2, 1, 0, 0, 0])
        #expect(clients.map { $0.inLine != nil } == [false, false, true, true, true])
        #expect(service.policy.budget.counters.waiting == 3)
        // Each one that has been heard makes room for the first in the line, and has itself one read left or none.
        clients[0].arrive(10)
        service.run()
        #expect(clients.map(\.postedReads) == [1, 1, 1, 0, 0])
        clients[0].arrive(10)
        service.run()
        #expect(clients.map(\.postedReads) == [0, 1, 1, 1, 0])
        #expect(clients[0].inLine != nil)
        clients[1].arrive(10)
        service.run()
        #expect(clients.map(\.postedReads) == [0, 0, 1, 1, 1])
        clients[2].arrive(10)
        service.run()
        #expect(clients.map(\.postedReads) == [1, 0, 0, 1, 1])
        #expect(clients.map(\.delivered) == [20, 10, 10, 0, 0])
        service.end()
    }

    // I7.2
    @Test("answer-waits-for-idle: a slot that is sent back keeps its pages until it has been sent")
    func answerWaitsForIdle() throws {
        let service = try ScriptedService(.buffered, pages: 4)
        let clients = (0..<5).map { _ in service.open(reads: 1) }
        #expect(service.policy.budget.counters.waiting == 1)
        clients[0].handling = .held
        clients[0].arrive(5)
        service.run()
        // On its way back, under the charge of its read: the line is not served with these pages.
        #expect(clients[0].held.count == 1 && clients[0].held[0].claim.isCharged)
        #expect(service.locked == 4 && clients[4].postedReads == 0)
        clients[0].letGo(0)
        service.run()
        #expect(clients[4].postedReads == 1 && clients[0].inLine != nil)
        service.end()
    }

    // I7.2: What the old answers had at their edges: two-page buffers, one page of bytes, and more behind them.
    @Test("two-page buffers: one page is sent back, more bytes wait, and all of both pages stays charged")
    func twoPages() throws {
        for choice in [Choice.buffered, Self.adaptive, .zeroByte, .mixed(reads: 1)] {
            let service = try ScriptedService(choice, pages: 4, pagesEach: 2)
            let one = service.open(reads: 2)
            one.handling = .held
            one.arrive(Page.size)
            service.run()
            one.arrive(3 * Page.size)
            service.run()
            #expect(service.locked == 2 * one.charged)
            while !one.held.isEmpty {
                one.letGo(0)
                service.run()
                #expect(service.locked == 2 * one.charged)
            }
            #expect(one.delivered == 4 * Page.size, "\(choice)")
            service.end()
        }
    }

    // I7.3
    @Test("a buffer larger than the whole budget: the connection waits without one, and is read")
    func largerThanBudget() throws {
        for choice in [Choice.buffered, Self.adaptive, .mixed(reads: 1)] {
            let service = try ScriptedService(choice, pages: 1, pagesEach: 2)
            let one = service.open()
            #expect(one.isWaiting && one.inLine == nil, "\(choice)")
            one.arrive(30_000)
            one.end()
            service.run()
            #expect(one.delivered == 30_000 && one.isEndSeen)
            #expect(service.policy.budget.counters.peak == 0)
            service.end()
        }
    }

    // I7.6
    @Test("adaptive: a second read that finds no page changes nothing; an only one does")
    func secondReadIsNoWant() throws {
        let service = try ScriptedService(
            .adaptive(ReceiveThresholds(zeroByteFrom: 100, bufferedUpTo: 2)), pages: 3)
        let (one, two) = (service.open(), service.open())
        #expect((one.postedReads, two.postedReads) == (2, 1))
        for _ in 0..<10 {
            one.arrive(100)
            two.arrive(100)
            service.run()
        }
        #expect(service.policy.mode == .buffered && service.locked == 3)
        let three = service.open()
        #expect(service.policy.mode == .zeroByte)
        service.run()
        #expect(service.locked == 0 && [one, two, three].allSatisfy(\.isWaiting))
        service.close(2)
        #expect(service.policy.mode == .buffered && service.policy.changesMade == (1, 1))
        service.end()
    }

    // I7.6
    @Test("the mode changes at its numbers exactly, and not between them")
    func thresholds() throws {
        let service = try ScriptedService(
            .adaptive(ReceiveThresholds(zeroByteFrom: 6, bufferedUpTo: 3)), pages: 64)
        func modes(_ steps: [Int]) -> [ReceiveMode] {
            steps.map {
                while service.connections.count < $0 { service.open() }
                while service.connections.count > $0 { service.close(0) }
                return service.policy.mode
            }
        }
        let (b, z) = (ReceiveMode.buffered, ReceiveMode.zeroByte)
        #expect(modes([5, 6, 5, 4, 3, 4, 5, 6]) == [b, z, z, z, b, b, b, z])
        #expect(service.policy.changesMade == (2, 1))
        service.run()
        #expect(service.locked == 0)
        service.end()
        let standard = ReceiveThresholds(budget: 8_192, pagesEach: 1)
        #expect(standard == ReceiveThresholds(zeroByteFrom: 6_144, bufferedUpTo: 4_096))
        // Also the smallest budgets give two numbers that lie apart.
        for pages in 1...8 {
            let small = ReceiveThresholds(budget: pages, pagesEach: 1)
            #expect(small.bufferedUpTo < small.zeroByteFrom, "\(pages)")
        }
    }

    // I7.3
    @Test("a slab that is smaller than its service: who finds no buffer waits in a line, too, in its order")
    func slabRunsOut() throws {
        for choice in [Choice.zeroByte, Self.adaptive, .mixed(reads: 1)] {
            let service = try ScriptedService(choice, pages: 64, buffers: 2)
            let clients = (0..<9).map { _ in service.open(reads: 2) }
            service.run()
            for client in clients {
                client.handling = .held
                client.arrive(100)
            }
            service.run()
            #expect(clients.reduce(0) { $0 + $1.held.count } == 2, "\(choice)")
            #expect(service.policy.withoutBuffer > 0)
            #expect(clients.allSatisfy { $0.held.count == 1 || $0.inLine != nil || $0.isWaiting })
            var order: [Int] = []
            while let next = clients.firstIndex(where: { !$0.held.isEmpty }) {
                order.append(next)
                clients[next].letGo(0)
                service.run()
            }
            #expect(clients.allSatisfy { $0.delivered == 100 }, "\(choice) \(clients.map(\.delivered))")
            #expect(service.policy.slab.counters.peak == 2)
            service.end()
        }
        // With buffers the idle ones have both, and the others stay in the line until one leaves.
        let service = try ScriptedService(.buffered, pages: 64, buffers: 2)
        let clients = (0..<4).map { _ in service.open(reads: 1) }
        #expect(clients.map(\.postedReads) == [1, 1, 0, 0] && service.policy.withoutBuffer == 2)
        service.close(0)
        service.run()
        #expect(clients.map(\.postedReads) == [0, 1, 1, 0] && service.policy.withoutBuffer == 1)
        service.end()
    }

    // I7.3, I7.6
    @Test(
        "a slot that comes back with its buffer gives it to the line, also when the mode has changed meanwhile"
    )
    func bufferGoesToTheLine() throws {
        let service = try ScriptedService(
            .adaptive(ReceiveThresholds(zeroByteFrom: 5, bufferedUpTo: 4)), pages: 64, buffers: 1)
        let clients = (0..<5).map { _ in service.open(reads: 1) }
        service.run()
        #expect(service.policy.mode == .zeroByte)
        clients[0].handling = .held
        clients[0].arrive(10)
        service.run()
        clients[1].arrive(10)
        service.run()
        #expect(clients[1].inLine != nil && service.policy.withoutBuffer == 1)
        // Buffers again. The one buffer there is may not stay with a client that says nothing.
        service.close(4)
        #expect(service.policy.mode == .buffered)
        clients[0].letGo(0)
        service.run()
        #expect(clients[1].delivered == 10 && clients[1].inLine == nil)
        service.end()
    }

    // I7.3, I7.6
    @Test(
        "a buffer that comes from the line in buffered mode is not kept by a silent client while others wait for one"
    )
    func grantIsNotKept() throws {
        let service = try ScriptedService(
            .adaptive(ReceiveThresholds(zeroByteFrom: 5, bufferedUpTo: 4)), pages: 64, buffers: 1)
        let clients = (0..<5).map { _ in service.open(reads: 1) }
        service.run()
        // One has the buffer, and two are in the line. The first of them will find nothing to read.
        clients[0].handling = .held
        for client in clients.prefix(3) {
            client.arrive(10)
            service.run()
        }
        #expect(service.policy.withoutBuffer == 2)
        clients[1].steal()
        service.close(4)
        #expect(service.policy.mode == .buffered)
        clients[0].letGo(0)
        service.run()
        #expect(clients[2].delivered == 10 && clients[2].inLine == nil)
        service.end()
    }

    // I7.4, I5.9
    @Test("zero bytes: one wait for a burst, however many buffers it fills; the end is found by reading")
    func burst() throws {
        let service = try ScriptedService(.zeroByte, pages: 4)
        let one = service.open(reads: 3)
        #expect(one.isWaiting && service.policy.slab.counters.inUse == 0)
        one.arrive(16 * Page.size + 1)
        service.run()
        #expect(one.delivered == 16 * Page.size + 1)
        #expect((one.waits, one.immediate) == (2, 17))
        #expect(one.isWaiting && service.policy.slab.counters.inUse == 0)
        one.end()
        service.run()
        #expect(one.isEndSeen && service.policy.budget.counters.peak == 0)
        service.end()
    }

    // I7.2
    @Test(
        "mixed: the reads lock their pages while the client is silent, and what comes behind them is waited for"
    )
    func mixed() throws {
        let service = try ScriptedService(.mixed(reads: 2), pages: 64)
        let clients = (0..<10).map { _ in service.open(reads: 3) }
        #expect(service.locked == 20 && clients.allSatisfy(\.isWaiting))
        clients[0].arrive(5 * Page.size)
        service.run()
        // Two posted reads, then the wait; what lies behind is read at once, and then it begins anew.
        #expect(clients[0].delivered == 5 * Page.size && clients[0].immediate >= 3)
        #expect(service.locked == 20 && clients[0].waits == 2)
        service.end()
    }

    // I7.1 to I7.7
    @Test(
        "random schedules, in each mode: every byte in order, every page counted, and all of it back",
        arguments: [1, 2, 8])
    func random(reads: Int) throws {
        let choices: [Choice] = [.buffered, .zeroByte, Self.adaptive, .mixed(reads: max(1, reads - 1))]
        for (index, choice) in choices.enumerated() {
            for (pages, buffers) in [(3, 4_096), (24, 4_096), (64, 5)] {
                var chance = Chance(state: UInt64(1 + index * 97 + pages * 7 + reads))
                let service = try ScriptedService(choice, pages: pages, buffers: buffers)
                for _ in 0..<3_000 {
                    step(service, reads, &chance)
                    #expect(service.locked == service.connections.reduce(0) { $0 + $1.charged })
                    #expect(service.locked <= pages)
                }
                // All let go, and what is there is read: nothing that was sent is missing.
                while service.connections.contains(where: { $0.hasWork || !$0.held.isEmpty }) {
                    for connection in service.connections {
                        connection.handling = .done
                        if !connection.held.isEmpty { connection.letGo(0) }
                    }
                    service.run { chance($0) }
                }
                for connection in service.connections where connection.inLine == nil {
                    #expect(connection.delivered == connection.arrived, "\(choice) \(pages) \(buffers)")
                }
                // Only where idle connections keep their buffers, others may be in the line.
                if choice != .buffered {
                    #expect(
                        service.connections.allSatisfy { $0.inLine == nil }, "\(choice) \(pages) \(buffers)")
                }
                service.end()
            }
        }
    }

    private func step(_ service: ScriptedService, _ reads: Int, _ chance: inout Chance) {
        let connections = service.connections
        if connections.isEmpty || connections.count < 12 && chance(8) == 0 {
            service.open(reads: reads)
            return
        }
        let index = chance(connections.count)
        let connection = connections[index]
        switch chance(16) {
        case 0: service.close(index)
        case 1: connection.handling = chance(2) == 0 ? .held : .done
        case 2...5: connection.arrive(1 + chance(3 * Page.size))
        case 6...7 where !connection.held.isEmpty: connection.letGo(chance(connection.held.count))
        case 8 where !connection.grants.isEmpty: connection.takeGrant()
        case 9: connection.reconsider()
        default:
            if !connection.packets.isEmpty { connection.takePacket(chance(connection.packets.count)) }
        }
    }

    // I7.2, I7.3, I7.4
    @Test(
        "64 streams and 200 idle connections under 64 pages: all bytes come, and what is idle holds nothing")
    func streamsAndIdle() throws {
        for choice in [Choice.zeroByte, .adaptive(ReceiveThresholds(budget: 64, pagesEach: 1))] {
            var chance = Chance(state: 5)
            let service = try ScriptedService(choice, pages: 64)
            let streams = (0..<64).map { _ in service.open(reads: 2) }
            let idle = (0..<200).map { _ in service.open(reads: 2) }
            service.run()
            #expect(service.locked == 0 && service.policy.slab.counters.inUse == 0)
            for _ in 0..<50 {
                for stream in streams where chance(2) == 0 { stream.arrive(1 + chance(4 * Page.size)) }
                service.run { chance($0) }
            }
            #expect(streams.allSatisfy { $0.delivered == $0.arrived && $0.arrived > 0 })
            #expect(idle.allSatisfy { $0.isWaiting && $0.waits <= 2 })
            #expect(service.policy.budget.counters.peak <= 64)
            service.end()
        }
    }
}
