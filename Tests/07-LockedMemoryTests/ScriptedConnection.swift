import Kernel
import LockedMemory
import Reordering
import Stage
import Testing

/// A slot of a scripted connection.
final class ScriptedSlot: @unchecked Sendable {
    private(set) var claim: SlotClaim!
    /// Its number in the stream, and what its read has brought: where the bytes begin, and how many they are.
    var number = 0
    var start = 0
    var count = 0
    var isGap = false
    /// The charge comes from a plan that said `read`. (I7.2)
    var isRead = false

    init(_ connection: ScriptedConnection) {
        claim = SlotClaim { [unowned connection, unowned self] in connection.grants.append(self) }
    }
}

/// A connection after chapter 05's rules, without threads and without a system: its socket is a few numbers, and its packets
/// are taken in any order that a test chooses. What it asks of its policy, and what it must hold, it
/// checks at every step.
final class ScriptedConnection: @unchecked Sendable {
    enum Packet {
        case read(ScriptedSlot)
        case wait
    }
    /// What a handler does with bytes.
    enum Handling {
        case done
        /// Keeps the slot, or sends it back: the test says when that is over.
        case held
    }

    let policy: BudgetedReceives
    let limit: Int
    private let settle: () -> Void
    // The socket: bytes that have arrived and have been taken, and what is posted, in order.
    private(set) var arrived = 0
    private(set) var taken = 0
    private var hasEnded = false
    private var posted: [ScriptedSlot] = []
    private var waitIsPosted = false
    // The connection.
    private var home: [ScriptedSlot] = []
    private(set) var packets: [Packet] = []
    var grants: [ScriptedSlot] = []
    private(set) var held: [ScriptedSlot] = []
    private(set) var inLine: ScriptedSlot?
    private(set) var isWaiting = false
    private var isReadable = false
    private var window: [Int: ScriptedSlot] = [:]
    private var nextNumber = 0
    private var expected = 0
    private(set) var out = 0
    /// Reads whose packets have not been taken in.
    private(set) var reads = 0
    private(set) var delivered = 0
    private(set) var isEndSeen = false
    private(set) var isClosed = false
    private(set) var waits = 0
    private(set) var immediate = 0
    var handling = Handling.done
    /// What is wrong, if anything is.
    private(set) var faults: [String] = []

    init(_ policy: BudgetedReceives, reads limit: Int, settle: @escaping () -> Void) {
        self.policy = policy
        self.limit = limit
        self.settle = settle
        home = (0..<limit).map { _ in ScriptedSlot(self) }
    }

    private func check(_ holds: Bool, _ rule: String) {
        if !holds { faults.append(rule) }
    }

    // MARK: The socket

    func arrive(_ bytes: Int) {
        arrived += bytes
        work()
    }

    /// Another reader takes what is there.
    func steal() {
        taken = arrived
        delivered = arrived
    }

    func end() {
        hasEnded = true
        work()
    }

    /// Fills what is posted, in the order of the posts.
    private func work() {
        while let slot = posted.first, arrived > taken || hasEnded {
            posted.removeFirst()
            take(into: slot)
            packets.append(.read(slot))
        }
        if posted.isEmpty, waitIsPosted, arrived > taken || hasEnded {
            waitIsPosted = false
            packets.append(.wait)
        }
    }

    private func take(into slot: ScriptedSlot) {
        (slot.start, slot.count) = (taken, min(arrived - taken, slot.claim.buffer!.count))
        taken += slot.count
    }

    // MARK: What chapter 05 does under its lock

    func replan() {
        while !isClosed, !isEndSeen, !isWaiting, inLine == nil, out < limit, let slot = home.popLast() {
            let need = ReceiveNeed(posted: reads, isReadable: isReadable)
            switch policy.plan(slot.claim, need) {
            case .read(let buffer):
                check(
                    slot.claim.buffer?.baseAddress == buffer.baseAddress && slot.claim.isCharged,
                    "I7.2: posted without a charge")
                check(!waitIsPosted, "I5.9: posted behind a wait")
                slot.isRead = true
                number(slot)
                reads += 1
                posted.append(slot)
                work()
            case .readNow(let buffer):
                check(
                    slot.claim.buffer?.baseAddress == buffer.baseAddress && !slot.claim.isCharged,
                    "I7.2: a charge for an immediate read")
                check(posted.isEmpty, "I5.9: an immediate read beside a posted one")
                guard arrived > taken || hasEnded else {
                    isReadable = false
                    goHome(slot)
                    continue
                }
                immediate += 1
                number(slot)
                take(into: slot)
                isReadable = slot.count == buffer.count
                window[slot.number] = slot
            case .wait:
                check(!slot.claim.isCharged && slot.claim.buffer == nil, "a wait holds something")
                goHome(slot)
                isWaiting = true
                waitIsPosted = true
                waits += 1
                work()
            case .later:
                check(reads == 0, "I7.3: in the line beside a posted read")
                check(!slot.claim.isCharged, "in the line with a charge")
                inLine = slot
                out += 1
            case .enough:
                check(!slot.claim.isCharged && slot.claim.buffer == nil, "enough, and it holds something")
                goHome(slot)
                return
            }
        }
    }

    private func number(_ slot: ScriptedSlot) {
        slot.number = nextNumber
        nextNumber += 1
        out += 1
        check(out <= limit, "I5.5: more slots out than there may be")
    }

    private func goHome(_ slot: ScriptedSlot) {
        policy.release(slot.claim)
        slot.isRead = false
        slot.isGap = false
        home.append(slot)
        check(slot.claim.buffer == nil && !slot.claim.isCharged, "I7.2: home, and it holds something")
    }

    /// Takes one of the packets in, as one of several workers would.
    func takePacket(_ index: Int) {
        switch packets.remove(at: index) {
        case .wait:
            isWaiting = false
            isReadable = true
        case .read(let slot):
            reads -= 1
            window[slot.number] = slot
        }
        step()
    }

    /// A grant has come to a worker.
    func takeGrant() {
        let slot = grants.removeFirst()
        check(slot === inLine, "granted, and not in the line")
        inLine = nil
        out -= 1
        if isClosed { goHome(slot) } else { home.append(slot) }
        step()
    }

    /// The end of each packet: plan, hand over, plan again, and then, without the lock, settle. (I5.9, I7.7)
    private func step() {
        drain()
        replan()
        drain()
        settle()
    }

    private func drain() {
        while let slot = window.removeValue(forKey: expected) {
            expected += 1
            if slot.isGap {
                out -= 1
                goHome(slot)
            } else if slot.count == 0 {
                check(slot.start == arrived || isClosed, "I5.2: an end in front of bytes")
                isEndSeen = true
                out -= 1
                goHome(slot)
            } else {
                check(
                    slot.start == delivered || isClosed,
                    "I5.1: bytes at \(slot.start), and \(delivered) were next")
                delivered = slot.start + slot.count
                check(slot.isRead == slot.claim.isCharged, "I7.2: the charge has changed while it was out")
                if handling == .held, !isClosed {
                    held.append(slot)
                } else {
                    out -= 1
                    goHome(slot)
                }
                replan()
            }
        }
    }

    /// The handler is done with a slot that it has kept, or that has been sent back.
    func letGo(_ index: Int) {
        let slot = held.remove(at: index)
        check(slot.isRead == slot.claim.isCharged, "I7.2: the charge has changed while it was kept")
        out -= 1
        goHome(slot)
        step()
    }

    /// Asked for its buffers, as after a change of mode. (I7.5)
    func reconsider() {
        withdrawPosted()
        if let slot = inLine, policy.withdraw(slot.claim) {
            inLine = nil
            out -= 1
            goHome(slot)
        }
        replan()
        drain()
        settle()
    }

    /// Cancels what is posted with a buffer. Each comes back as a gap. (I5.8)
    private func withdrawPosted() {
        for slot in posted {
            slot.isGap = true
            packets.append(.read(slot))
        }
        posted = []
        work()
    }

    func close() {
        isClosed = true
        withdrawPosted()
        if waitIsPosted {
            waitIsPosted = false
            packets.append(.wait)
        }
        if let slot = inLine, policy.withdraw(slot.claim) {
            inLine = nil
            out -= 1
            goHome(slot)
        }
        settle()
    }

    /// Pages that its slots are charged for.
    var charged: Int {
        (posted + held + window.values + (inLine.map { [$0] } ?? [])).count { $0.claim.isCharged }
            + packetCharges
    }
    private var packetCharges: Int {
        packets.count { if case .read(let slot) = $0 { slot.claim.isCharged } else { false } }
    }
    var hasWork: Bool { !packets.isEmpty || !grants.isEmpty }
    /// It is one that reads with a buffer now.
    var postedReads: Int { posted.count }
}

/// Scripted connections with one policy, and what a service does for them.
final class ScriptedService {
    let policy: BudgetedReceives
    private(set) var connections: [ScriptedConnection] = []
    /// No lock of a connection is held while another is called: nothing here settles within a settle.
    private var isSettling = false

    init(
        _ choice: BudgetedReceives.Choice, pages: Int, buffers: Int = 4_096, pagesEach: Int = 1
    ) throws {
        policy = BudgetedReceives(
            choice, budget: PageBudget(pages: pages),
            slab: try PageSlab(bufferSize: pagesEach * Page.size, capacity: buffers))
    }

    @discardableResult
    func open(reads: Int = 2) -> ScriptedConnection {
        let connection = ScriptedConnection(policy, reads: reads) { [unowned self] in settle() }
        connections.append(connection)
        policy.connectionsAre(connections.count)
        connection.replan()
        settle()
        return connection
    }

    func close(_ index: Int) {
        connections[index].close()
        finish(connections.remove(at: index))
        policy.connectionsAre(connections.count)
        settle()
    }

    func settle() {
        if isSettling { return }
        isSettling = true
        policy.serveLines()
        while policy.takeChange() {
            for connection in connections { connection.reconsider() }
            policy.serveLines()
        }
        isSettling = false
    }

    /// Takes every packet in, until nothing is left to be done.
    func run(_ choose: (Int) -> Int = { _ in 0 }) {
        while connections.contains(where: \.hasWork) {
            for connection in connections { work(connection, choose) }
            settle()
        }
    }

    private func work(_ connection: ScriptedConnection, _ choose: (Int) -> Int) {
        if !connection.packets.isEmpty { connection.takePacket(choose(connection.packets.count)) }
        if !connection.grants.isEmpty { connection.takeGrant() }
    }

    private func finish(_ connection: ScriptedConnection) {
        while connection.hasWork { work(connection, { _ in 0 }) }
        while !connection.held.isEmpty { connection.letGo(0) }
        faults += connection.faults
    }

    /// What the connections that are closed have found.
    private var faults: [String] = []
    var allFaults: [String] { faults + connections.flatMap(\.faults) }
    var locked: Int { policy.budget.counters.locked }

    /// Closes all; whether everything is back and no rule was broken.
    func end(_ sourceLocation: SourceLocation = #_sourceLocation) {
        while !connections.isEmpty { close(0) }
        #expect(allFaults.isEmpty, "\(Set(allFaults))", sourceLocation: sourceLocation)
        #expect(policy.budget.counters.locked == 0, sourceLocation: sourceLocation)
        #expect(policy.budget.counters.waiting == 0, sourceLocation: sourceLocation)
        #expect(policy.slab.counters.inUse == 0, sourceLocation: sourceLocation)
        #expect(policy.withoutBuffer == 0, sourceLocation: sourceLocation)
    }
}
