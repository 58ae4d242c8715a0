import Contexts
import Glibc
import Kernel
import ReorderingPitfalls
import Stage
import Testing

@testable import Reordering

/// A socket as a script has it: what was posted on it completes when the script says so.
private final class ScriptedEnd: ReceivingEnd {
    /// The stream that is still in the socket.
    var unread: [UInt8] = []
    /// What comes behind it: nil for nothing yet, 0 for the end, or the system's number of a failure.
    var behind: Int32?
    /// What is pending, in the order of the posts. Nil stands for the wait.
    var pending: [Chunk?] = []
    /// What has completed, in that order, and whose packet has not been taken in.
    var packets: [Packet] = []
    /// Of a slot, or, without one, of the wait.
    typealias Packet = (slot: Chunk?, bytes: Int, error: Int32)
    var postError: Int32 = 0
    var chunks = FreeList<Chunk>(maximumFree: 64, maximumInUse: 64) { Chunk(capacity: 8) }
    private(set) var taken = 0

    func post(_ slot: Chunk) throws(SystemError) {
        if postError != 0 { throw SystemError(postError, attempted: "post") }
        pending.append(slot)
        run()
    }

    func postWait() throws(SystemError) {
        if postError != 0 { throw SystemError(postError, attempted: "post") }
        pending.append(nil)
        run()
    }

    /// The kernel's way: data, then whatever is behind it. A failure is told once, and then there are 0 bytes for ever.
    private func attempt(_ slot: Chunk?) -> (Int, Int32)? {
        if !unread.isEmpty {
            guard let slot else { return (0, 0) }
            return (take(slot.buffer!), 0)
        }
        guard let failure = behind else { return nil }
        behind = 0
        return (0, failure)
    }

    private func take(_ buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(buffer.count, unread.count)
        for index in 0..<count { buffer[index] = unread[index] }
        unread.removeFirst(count)
        taken += count
        return count
    }

    /// Completes what can be completed: the head of the pending, again and again.
    func run() {
        while let head = pending.first, let (bytes, error) = attempt(head) {
            pending.removeFirst()
            packets.append((head, bytes, error))
        }
    }

    func readNow(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        precondition(pending.isEmpty, "an immediate read beside a posted one")
        if !unread.isEmpty { return take(buffer) }
        guard let failure = behind else { return nil }
        behind = 0
        if failure != 0 { throw SystemError(failure, attempted: "read") }
        return 0
    }

    func cancel(_ slot: Chunk) {
        guard let place = pending.firstIndex(where: { $0 === slot }) else { return }
        pending.remove(at: place)
        packets.append((slot, 0, ECANCELED))
        run()
    }

    func cancelWait() {
        guard let place = pending.firstIndex(where: { $0 == nil }) else { return }
        pending.remove(at: place)
        packets.append((nil, 0, ECANCELED))
        run()
    }

    func takeSlot() -> Chunk? { chunks.take() }
    func returnSlot(_ slot: Chunk) { chunks.giveBack(slot) }

    /// Larger buffers: of 16, 32 and 64 bytes, as many as may be out.
    var larger = (out: 0, atMost: 8, taken: [Int]())

    func takeLarger(over bytes: Int) -> UnsafeMutableRawBufferPointer? {
        guard larger.out < larger.atMost else { return nil }
        let size = [16, 32, 64].first { $0 > bytes } ?? 64
        larger.out += 1
        larger.taken.append(size)
        return .allocate(byteCount: size, alignment: 8)
    }

    func returnLarger(_ buffer: UnsafeMutableRawBufferPointer) {
        larger.out -= 1
        buffer.deallocate()
    }
}

/// A policy with a budget of so many buffers and a line, in any of three modes: what chapter 07 does, and nothing else.
private final class ScriptedPolicy: ReceivePolicy, @unchecked Sendable {
    enum Mode: CaseIterable { case buffered, zeroByte, mixed }
    var mode: Mode
    var free: Int
    var charged: Set<ObjectIdentifier> = []
    private var due: Set<ObjectIdentifier> = []
    var line: [(slot: Chunk, owner: ObjectIdentifier)] = []
    /// Out of the line, charged, and on its way with a grant.
    var served: [Chunk] = []
    private var memory: [UnsafeMutableRawBufferPointer] = []
    private var lent: [ObjectIdentifier: UnsafeMutableRawBufferPointer] = [:]
    var owner = ObjectIdentifier(FreeList<Chunk>.self)

    init(_ mode: Mode, buffers: Int) {
        self.mode = mode
        free = buffers
    }

    private func lend(_ slot: Chunk) -> UnsafeMutableRawBufferPointer {
        if let buffer = lent[ObjectIdentifier(slot)] { return buffer }
        let buffer = memory.popLast() ?? .allocate(byteCount: 8, alignment: 8)
        lent[ObjectIdentifier(slot)] = buffer
        return buffer
    }

    deinit { for buffer in memory + Array(lent.values) { buffer.deallocate() } }

    func plan(_ slot: Chunk, _ need: ReceiveNeed) -> ReceivePlan {
        switch mode {
        case .buffered:
            let key = ObjectIdentifier(slot)
            if charged.contains(key) {
                // A slot that has just been served does not stand aside for those behind it.
                if due.remove(key) != nil || line.isEmpty { return .read(lend(slot)) }
                // Others wait: out, and in again at the end of the line.
                refund(slot)
            }
            if line.isEmpty, free > 0 {
                free -= 1
                charged.insert(key)
                return .read(lend(slot))
            }
            guard need.posted == 0 else { return .enough }
            line.append((slot, owner))
            return .later
        case .zeroByte, .mixed:
            // In mixed mode one read with a buffer, if there is one, and behind it a wait.
            if mode == .mixed, need.posted == 0, !need.isReadable, free > 0, line.isEmpty,
                !charged.contains(ObjectIdentifier(slot))
            {
                free -= 1
                charged.insert(ObjectIdentifier(slot))
                return .read(lend(slot))
            }
            if mode == .zeroByte, need.posted > 0 { return .enough }
            if need.isReadable {
                refund(slot)
                return .readNow(lend(slot))
            }
            return .wait
        }
    }

    /// One buffer more.
    func topUp() {
        free += 1
        serve()
    }

    private func refund(_ slot: Chunk) {
        guard charged.remove(ObjectIdentifier(slot)) != nil else { return }
        free += 1
        serve()
    }

    private func serve() {
        while free > 0, !line.isEmpty {
            free -= 1
            let (slot, _) = line.removeFirst()
            charged.insert(ObjectIdentifier(slot))
            due.insert(ObjectIdentifier(slot))
            served.append(slot)
        }
    }

    func release(_ slot: Chunk) {
        refund(slot)
        due.remove(ObjectIdentifier(slot))
        if let buffer = lent.removeValue(forKey: ObjectIdentifier(slot)) { memory.append(buffer) }
    }

    func withdraw(_ slot: Chunk) -> Bool {
        guard let place = line.firstIndex(where: { $0.slot === slot }) else { return false }
        line.remove(at: place)
        return true
    }
}

extension OrderedReceiver {
    /// Takes a packet in, as a connection does.
    fileprivate mutating func take(_ packet: ScriptedEnd.Packet) {
        if let slot = packet.slot {
            completed(slot, packet.bytes, packet.error)
        } else {
            waitCompleted(packet.error)
        }
    }
}

/// A connection without a socket and without threads: one step after the other, in the order of a script.
private final class Model {
    let end = ScriptedEnd()
    let policy: ScriptedPolicy
    var receiver: OrderedReceiver
    /// What a handler would have heard.
    var heard: [UInt8] = []
    var events: [String] = []
    var kept: [Chunk] = []
    var isOver = false
    private var isDraining = false
    var isIdle: Bool { receiver.isIdle }
    var isWaiting: Bool { receiver.isWaiting }

    init(_ policy: ScriptedPolicy, limit: Int, first: UInt32 = 0) {
        self.policy = policy
        receiver = OrderedReceiver(limit: limit, first: SequenceNumber(first))
    }

    func ask(with slot: Chunk? = nil, mayWait: Bool? = nil) {
        policy.owner = ObjectIdentifier(self)
        let wasWaiting = receiver.isWaiting
        let mayWait = mayWait ?? !isDraining
        receiver.replan(end, policy, with: slot, mayWait: mayWait)
        // While the handler is being called, no wait is posted. (R2b)
        if !mayWait, !wasWaiting, isWaiting { Issue.record("a wait was posted") }
        check()
    }

    /// Takes a packet in. Any of those that are there: workers are of any speed. But never the wait's before those that
    /// completed in front of it: it has no number, and what comes after it is read when its packet is there.
    func takePacket(_ index: Int) {
        let packet = end.packets.remove(at: index)
        receiver.take(packet)
        if packet.slot == nil { ask() }
        check()
    }

    func grant() {
        guard let place = policy.served.firstIndex(where: { $0 === receiver.inLine }) else { return }
        let slot = policy.served.remove(at: place)
        policy.owner = ObjectIdentifier(self)
        receiver.granted(slot, end, policy, mayWait: true)
        drain()
        check()
    }

    /// As a connection drains. The handler keeps chunks by chance.
    func drain(keeps: () -> Bool = { false }, during: (Model) -> Void = { _ in }) {
        isDraining = true
        var hasDelivered = false
        while true {
            if let chunk = receiver.takeNext() {
                hasDelivered = true
                if chunk.failure != 0 {
                    events.append("failed \(chunk.failure)")
                    close()
                } else if chunk.place == .gap {
                    // Nobody hears of it.
                } else if chunk.count == 0 {
                    if !isOver, receiver.end() { events.append("ended") }
                } else {
                    heard += chunk.contents
                    during(self)
                    if keeps() {
                        kept.append(chunk)
                        continue
                    }
                }
                ask(with: chunk)
            } else if let code = receiver.takeWaitFailure() {
                events.append("failed \(code)")
                close()
            } else if receiver.isDue(afterDelivery: exchange(&hasDelivered, with: false)) {
                ask(mayWait: true)
            } else {
                break
            }
        }
        isDraining = false
        check()
    }

    func giveBack() {
        guard let chunk = kept.popLast() else { return }
        ask(with: chunk)
    }

    func close() {
        guard !isOver else { return }
        isOver = true
        receiver.stop(end, policy)
        // The driver cancels what is pending.
        for slot in end.pending { end.packets.append((slot, 0, ECANCELED)) }
        end.pending = []
    }

    func changeOver() {
        policy.owner = ObjectIdentifier(self)
        receiver.callOff(end, policy)
        ask()
    }

    /// What holds at any moment. (R2, R4, R7, and the books of the slots)
    func check() {
        let isRight =
            receiver.out <= receiver.limit && receiver.out == end.chunks.counters.inUse
            && receiver.waiting.now <= receiver.limit && (receiver.inLine == nil || receiver.posted == 0)
            // Behind the wait nothing is posted.
            && (!receiver.isWaiting || end.pending.isEmpty || end.pending.last! == nil)
        if !isRight { Issue.record("the books of the slots are wrong") }
    }

    /// Everything that is to come comes, and everything goes home.
    func settle() {
        for _ in 0..<10_000 {
            end.run()
            drain()
            if !end.packets.isEmpty {
                takePacket(0)
                drain()
            } else if policy.served.contains(where: { $0 === receiver.inLine }) {
                grant()
            } else if !kept.isEmpty {
                giveBack()
                drain()
            } else {
                return
            }
        }
        Issue.record("it never comes to rest")
    }
}

/// The model's dice.
private struct Dice {
    var random: Random
    mutating func below(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    mutating func once(in count: Int) -> Bool { below(count) == 0 }
}

@Suite("Chapter 05: the receiver, without a socket")
struct Chapter05ReorderingReceiver {
    private func model(_ mode: ScriptedPolicy.Mode, _ limit: Int, buffers: Int = 64) -> Model {
        Model(ScriptedPolicy(mode, buffers: buffers), limit: limit)
    }

    // I5.12
    @Test(
        "a stream: nothing is posted, each read is larger than what came last, and it waits without a buffer"
    )
    func stream() {
        let end = ScriptedEnd()
        var receiver = OrderedReceiver(limit: 2, maximumRoom: 64)
        receiver.replan(end, nil, mayWait: true)
        #expect(end.pending.count == 2)
        end.unread = Array((0..<100).map { UInt8($0) })
        end.run()
        var heard: [UInt8] = []
        for packet in end.packets {
            // The first of two full reads is followed by none that is posted: the second is still out.
            receiver.completed(packet.slot!, packet.bytes, packet.error)
            guard let chunk = receiver.takeNext() else { return #expect(Bool(false), "its turn") }
            heard += chunk.contents
            receiver.replan(end, nil, with: chunk, mayWait: true)
            #expect(end.pending.isEmpty)
        }
        #expect(end.larger.taken == [16, 32] && receiver.out == 2)
        while let chunk = receiver.takeNext() {
            heard += chunk.contents
            receiver.replan(end, nil, with: chunk, mayWait: true)
        }
        #expect(heard == Array((0..<100).map { UInt8($0) }))
        #expect(end.larger.taken == [16, 32, 64])
        // All is read: it waits with empty hands.
        #expect(end.pending.count == 1 && end.pending[0] == nil && receiver.isWaiting)
        #expect(receiver.out == 0 && end.larger.out == 0)
        // A few bytes, and it is no stream any more.
        end.unread = [1, 2, 3]
        end.run()
        receiver.waitCompleted(0)
        receiver.replan(end, nil, mayWait: true)
        guard let last = receiver.takeNext() else { return #expect(Bool(false), "its turn") }
        #expect(Array(last.contents) == [1, 2, 3] && end.larger.out == 1)
        receiver.replan(end, nil, with: last, mayWait: true)
        #expect(end.larger.out == 0 && receiver.posted == 2 && !receiver.isWaiting)
    }

    // I5.12
    @Test("a stream for which there is no larger buffer is read into chunks, and none waits")
    func streamWithoutLarger() {
        let end = ScriptedEnd()
        end.larger.atMost = 0
        var receiver = OrderedReceiver(limit: 2, maximumRoom: 64)
        receiver.replan(end, nil, mayWait: true)
        end.unread = Array((0..<100).map { UInt8($0) })
        end.run()
        var heard: [UInt8] = []
        while !end.packets.isEmpty {
            receiver.take(end.packets.removeFirst())
            while let chunk = receiver.takeNext() {
                heard += chunk.contents
                receiver.replan(end, nil, with: chunk, mayWait: true)
            }
            receiver.replan(end, nil, mayWait: true)
        }
        #expect(heard.count == 100 && heard == Array((0..<100).map { UInt8($0) }))
    }

    // I5.12
    @Test("reads that do not grow by themselves grow as far as the handler knows what comes, no byte further")
    func expected() {
        let end = ScriptedEnd()
        var receiver = OrderedReceiver(limit: 2, maximumRoom: 64, growsUpTo: 0)
        receiver.replan(end, nil, mayWait: true)
        end.unread = Array((0..<120).map { UInt8($0) })
        var (heard, sizes): ([UInt8], [Int]) = ([], [])
        for _ in 0..<40 where heard.count < 120 {
            end.run()
            if !end.packets.isEmpty { receiver.take(end.packets.removeFirst()) }
            receiver.replan(end, nil, mayWait: true)
            while let chunk = receiver.takeNext() {
                heard += chunk.contents
                sizes.append(chunk.count)
                // From the twentieth byte to the ninetieth it is a file.
                if (20..<90).contains(heard.count) { receiver.expect(upTo: 90) }
                receiver.replan(end, nil, with: chunk, mayWait: true)
            }
        }
        #expect(heard == Array((0..<120).map { UInt8($0) }))
        let ends = sizes.indices.map { sizes[...$0].reduce(0, +) }
        // Before it and behind it chunks; within it larger ones, the last of which ends where it ends.
        #expect(ends.contains(90) && !end.larger.taken.isEmpty, "\(sizes)")
        for (size, last) in zip(sizes, ends) where last <= 20 || last > 90 { #expect(size <= 8, "\(sizes)") }
        #expect(end.larger.out == 0)
    }

    // I5.8
    @Test("a gap in front of bytes: nobody hears of it, and the bytes come")
    func gapInFront() {
        let model = model(.buffered, 2)
        model.ask()
        let first = model.end.pending[0]!
        model.end.cancel(first)
        model.end.unread = Array("behind".utf8)
        model.end.run()
        // The bytes' packet is the first to be taken in; it waits for the gap.
        model.takePacket(1)
        model.drain()
        #expect(model.heard.isEmpty && model.receiver.waiting.now == 1)
        model.takePacket(0)
        model.drain()
        #expect(text(model.heard) == "behind" && model.events.isEmpty)
        #expect(model.receiver.posted == 2 && model.receiver.out == 2)
    }

    // I5.8
    @Test("two are called off, and the second has been quicker: its bytes stay, the first is a gap")
    func cancelOfTwo() {
        let model = model(.buffered, 2)
        model.ask()
        let slots = model.end.pending.map { $0! }
        // The driver has filled the first when the second's cancel comes; and so the other way round.
        model.end.unread = Array("quick".utf8)
        model.end.cancel(slots[0])
        model.end.run()
        model.policy.mode = .zeroByte
        model.changeOver()
        #expect(model.end.pending.isEmpty)
        model.settle()
        #expect(text(model.heard) == "quick")
        #expect(model.isWaiting && model.receiver.posted == 0 && model.policy.charged.isEmpty)
        #expect(model.receiver.out == 0)
    }

    // I5.8, I5.9
    @Test(
        "a change of mode with reads posted, held and in line leaves no charge behind", arguments: [1, 2, 8])
    func changeOfMode(limit: Int) {
        for state in ["posted", "held", "in line"] {
            let model = model(.buffered, limit, buffers: state == "in line" ? 0 : 64)
            model.ask()
            if state == "held" {
                model.end.unread = known(0, 8 * limit)
                model.end.run()
                while !model.end.packets.isEmpty { model.takePacket(0) }
                model.drain(keeps: { true })
                #expect(model.kept.count == limit && model.receiver.posted == 0)
            }
            #expect((model.receiver.inLine != nil) == (state == "in line"))
            model.policy.mode = .zeroByte
            model.changeOver()
            if state == "held" {
                // At 0 home slots nothing is posted, not even a wait.
                #expect(!model.isWaiting && model.policy.charged.count == limit)
            }
            model.settle()
            #expect(model.isWaiting && model.receiver.out == 0, "\(state)")
            #expect(model.policy.charged.isEmpty && model.policy.line.isEmpty)
            // And it is read from.
            model.end.unread += Array("more".utf8)
            model.settle()
            #expect(text(model.heard).hasSuffix("more"))
            // To buffers again: the wait goes on, and the next plan sees the mode.
            model.policy.mode = .buffered
            model.policy.free = 64
            model.end.unread = Array("and more".utf8)
            model.settle()
            #expect(text(model.heard).hasSuffix("moreand more"))
            #expect(model.receiver.posted == limit && model.policy.charged.count == limit)
        }
    }

    // I5.8
    @Test("a grant that crosses a change of mode, a pause or the end charges nothing", arguments: 0..<3)
    func grantCrosses(what: Int) {
        let model = model(.buffered, 2, buffers: 0)
        model.ask()
        #expect(model.receiver.inLine != nil)
        // Served, and the grant is on its way.
        model.policy.topUp()
        let slot = model.policy.served[0]
        switch what {
        case 0:
            model.policy.mode = .zeroByte
            model.changeOver()
        case 1: model.receiver.pause(.program)
        default: model.close()
        }
        #expect(model.receiver.inLine === slot && !model.isIdle)
        model.grant()
        #expect(model.policy.charged.isEmpty && model.policy.free == 1)
        #expect(model.receiver.out == 0 && model.isWaiting == (what == 0))
        #expect(model.isIdle == (what != 0))
    }

    // I5.7
    @Test("closed in any state, every slot and every charge comes home", arguments: [1, 2, 8])
    func closing(limit: Int) {
        for mode in ScriptedPolicy.Mode.allCases {
            for state in 0..<5 {
                let model = model(mode, limit, buffers: state == 4 ? 0 : 64)
                model.ask()
                if state > 0, state < 4 {
                    model.end.unread = known(0, 8 * limit)
                    model.end.run()
                }
                if state > 1, !model.end.packets.isEmpty { model.takePacket(model.end.packets.count - 1) }
                if state > 2 { model.drain(keeps: { true }) }
                model.close()
                model.settle()
                #expect(model.isIdle && model.receiver.out == 0, "\(mode) \(state)")
                #expect(model.policy.charged.isEmpty && model.policy.line.isEmpty)
                #expect(model.end.chunks.counters.inUse == 0)
            }
        }
    }

    // I5.11
    @Test("paused in any state, nothing is posted and nothing is lost", arguments: [1, 2, 8])
    func pausing(limit: Int) {
        for mode in ScriptedPolicy.Mode.allCases {
            for state in 0..<4 {
                let model = model(mode, limit)
                if state > 0 { model.ask() }
                model.end.unread = known(0, 30)
                if state > 1 { model.end.run() }
                if state > 2, !model.end.packets.isEmpty {
                    model.takePacket(model.end.packets.count - 1)
                }
                model.receiver.pause(.program)
                model.receiver.pause(.sends)
                model.end.unread += known(30, 70)
                model.settle()
                let before = model.end.taken
                #expect(model.end.pending.isEmpty || state == 0)
                model.end.unread += known(100, 50)
                model.settle()
                // Two reasons are two: one of them is not enough.
                model.receiver.resume(.program)
                model.ask()
                model.settle()
                #expect(model.end.taken == before && model.end.taken <= 8 * limit)
                model.receiver.resume(.sends)
                model.ask()
                model.settle()
                #expect(model.heard == known(0, 150), "\(mode) \(state)")
            }
        }
    }

    // I5.2, I5.9
    @Test("a wait that ends by a reset: first the bytes in front of it, then the reset, never a clean end")
    func waitFails() {
        for front in ["", "bytes"] {
            for mode in [ScriptedPolicy.Mode.zeroByte, .mixed] {
                let model = model(mode, 2, buffers: 0)
                model.ask()
                #expect(model.isWaiting)
                model.end.unread = Array(front.utf8)
                model.end.behind = ECONNRESET
                model.settle()
                #expect(text(model.heard) == front)
                #expect(model.events == ["failed \(ECONNRESET)"], "\(mode)")
                #expect(model.isIdle)
            }
        }
    }

    @Test("what a post throws takes its place in the stream, also that of a wait")
    func postFails() {
        for mode in ScriptedPolicy.Mode.allCases {
            let model = model(mode, 3)
            model.end.postError = ENOBUFS
            model.ask()
            model.drain()
            #expect(model.events == ["failed \(ENOBUFS)"] && model.receiver.out == 0)
        }
    }

    @Test("without a slot there is no reading, and that is a failure")
    func noSlot() {
        let model = model(.buffered, 2)
        model.end.chunks = FreeList(maximumFree: 0, maximumInUse: 0) { Chunk(capacity: 8) }
        model.ask()
        model.drain()
        #expect(model.events == ["failed \(ENOBUFS)"])
    }

    // I5.9
    @Test("bytes that come while the handler is called need no second packet")
    func lookAgain() {
        let model = model(.zeroByte, 2)
        model.ask()
        model.end.unread = Array("one".utf8)
        model.end.run()
        model.takePacket(0)
        model.drain(during: { if $0.heard.count == 3 { $0.end.unread = Array("two".utf8) } })
        #expect(text(model.heard) == "onetwo")
        #expect(model.receiver.counters.waits == 1 && model.receiver.counters.vainWaits == 0)
        #expect(model.isWaiting)
    }

    // I5.1, I5.2, I5.3, I5.8, I5.9
    @Test(
        "whatever the schedule, every byte comes once and in order, then the end, and everything is home",
        arguments: 1...(isSanitized ? 40 : 200))
    func anySchedule(seed: Int) {
        var dice = Dice(random: Random(seed: UInt64(seed)))
        let limit = [1, 2, 3, 8][dice.below(4)]
        let mode = ScriptedPolicy.Mode.allCases[dice.below(3)]
        let policy = ScriptedPolicy(mode, buffers: dice.below(5))
        let model = Model(policy, limit: limit, first: .max - UInt32(dice.below(20)))
        let isClosed = dice.once(in: 5)
        let failure: Int32 = dice.once(in: 4) ? ECONNRESET : 0
        var sent = 0
        model.ask()
        for step in 0..<400 {
            if step == 390 { model.end.behind = failure }
            switch dice.below(9) {
            case 0 where step < 390, 1 where step < 390:
                let count = 1 + dice.below(30)
                model.end.unread += known(sent, count)
                sent += count
            case 2, 3: model.end.run()
            case 4, 5:
                guard !model.end.packets.isEmpty else { continue }
                // The wait's packet is taken in when those in front of it are: the driver gives it last.
                let index = dice.below(model.end.packets.count)
                model.takePacket(index)
                if dice.once(in: 2) { model.drain(keeps: { dice.once(in: 4) }) }
            case 6: model.giveBack()
            case 7:
                switch dice.below(4) {
                case 0:
                    policy.mode = ScriptedPolicy.Mode.allCases[dice.below(3)]
                    model.changeOver()
                case 1: model.receiver.pause(.program)
                case 2: model.grant()
                default:
                    model.receiver.resume(.program)
                    model.ask()
                }
            default: model.drain(keeps: { dice.once(in: 4) })
            }
            if isClosed, step == 300 { model.close() }
        }
        model.end.behind = model.end.behind ?? failure
        model.receiver.resume(.program)
        // With no buffer at all and nobody who gives one back a buffered connection would wait for ever.
        policy.topUp()
        model.ask()
        model.settle()
        model.drain()
        #expect(model.heard == known(0, model.heard.count))
        if !isClosed {
            #expect(model.heard.count == sent)
            #expect(model.events == [failure == 0 ? "ended" : "failed \(failure)"])
        }
        if failure != 0 || isClosed { #expect(model.isIdle) }
        model.close()
        model.settle()
        #expect(model.receiver.out == 0 && policy.charged.isEmpty && policy.line.isEmpty)
    }

    // I5.10
    @Test(
        "64 streams and 200 idle ones under 64 buffers: every byte, and no charge is left", arguments: 1...3)
    func manyUnderOneBudget(seed: Int) {
        var dice = Dice(random: Random(seed: UInt64(seed)))
        let policy = ScriptedPolicy(seed == 3 ? .zeroByte : .buffered, buffers: 64)
        let models = (0..<264).map { _ in Model(policy, limit: 2) }
        let total = 100
        var sent = [Int](repeating: 0, count: 64)
        for model in models.shuffledBy(&dice) { model.ask() }
        if seed != 3 { #expect(policy.free == 0 && policy.line.count == 232) }
        var rounds = 0
        while rounds % 64 != 0 || (0..<64).contains(where: { models[$0].heard.count < total }),
            rounds < 20_000
        {
            rounds += 1
            let index = dice.below(64)
            let model = models[index]
            if sent[index] < total, dice.once(in: 2) {
                let count = min(total - sent[index], 1 + dice.below(20))
                model.end.unread += known(sent[index], count)
                sent[index] += count
            }
            model.end.run()
            if !model.end.packets.isEmpty { model.takePacket(dice.below(model.end.packets.count)) }
            model.drain()
            // Idle ones hold buffers in buffered mode. The mode changes once, or again and again.
            if seed == 2 ? rounds == 1_000 : seed == 1 && rounds % 500 == 0 {
                policy.mode = policy.mode == .buffered ? .zeroByte : .buffered
                if policy.mode == .zeroByte { for model in models { model.changeOver() } }
                for model in models {
                    while !model.end.packets.isEmpty { model.takePacket(0) }
                    model.drain()
                }
            }
            for served in policy.served { models.first { $0.receiver.inLine === served }?.grant() }
        }
        for index in 0..<64 { #expect(models[index].heard == known(0, total)) }
        for model in models { model.close() }
        for model in models { model.settle() }
        #expect(policy.charged.isEmpty && policy.line.isEmpty && policy.served.isEmpty && policy.free == 64)
        #expect(models.allSatisfy { $0.receiver.out == 0 && $0.end.chunks.counters.inUse == 0 })
    }
}

extension Array {
    fileprivate func shuffledBy(_ dice: inout Dice) -> [Element] {
        var copy = self
        for index in copy.indices.dropFirst() { copy.swapAt(index, dice.below(index + 1)) }
        return copy
    }
}
