import Contexts
import Glibc
import Kernel
import Timeline

/// What a receiver reads from: a connection's socket, or a test's script. It is called with the receiver's lock held.
protocol ReceivingEnd {
    /// Posts a read into the slot's buffer.
    func post(_ slot: Chunk) throws(SystemError)
    /// Posts the receive without a buffer.
    func postWait() throws(SystemError)
    /// Reads what is there. Nil when there is nothing now, 0 at the end.
    func readNow(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int?
    /// Asks for a posted read back. Its packet says whether the bytes were quicker.
    func cancel(_ slot: Chunk)
    /// Asks for the receive without a buffer back.
    func cancelWait()
    /// A chunk from the pool; nil when so many are out as may be.
    func takeSlot() -> Chunk?
    /// Back to the pool.
    func returnSlot(_ slot: Chunk)
    /// A buffer with room for more than so many bytes, larger than those of posted reads; nil when there is none at once.
    func takeLarger(over bytes: Int) -> UnsafeMutableRawBufferPointer?
    /// Back to where it is from.
    func returnLarger(_ buffer: UnsafeMutableRawBufferPointer)
}

/// The receiving side of a connection: which reads are posted, under which numbers, and what has come of them.
///
/// A value without a lock, that belongs to something with one: a connection, or a test. Where it may post, it asks the policy
/// what with, and carries the answer out at once: number and post are one step. (I5.1)
struct OrderedReceiver: ~Copyable {
    /// The most slots that are out at a time: a handler that does not take is not read for. (I5.11)
    let limit: Int
    /// Reads that have completed and are not handled yet. (I5.3)
    private var window: ReorderWindow<Chunk>
    /// The number of the next read.
    private var next: SequenceNumber
    /// The slots that are not at home, linked through themselves.
    private var slots: Chunk?
    /// How many they are.
    private(set) var out = 0
    /// Those that the driver has, or whose packets have not been taken in.
    private(set) var posted = 0
    /// The one that is in the policy's line. (I5.10)
    private(set) var inLine: Chunk?
    /// The receive without a buffer is posted. (I5.9)
    private(set) var isWaiting = false
    /// It was to be posted when that was not allowed.
    private var owesWait = false
    /// Bytes, or the end, are known to be there.
    private var isReadable = false
    /// By a wait, and nothing has been read since.
    private var hasWaited = false
    /// The end or a failure has come, or the connection is over: nothing is posted any more.
    private var hasStopped = false
    /// The end has had its turn.
    private(set) var hasEnded = false
    /// Why a wait has failed. It is behind every number.
    private var waitFailure: Int32 = 0
    private var pauses = PauseReasons()
    private var lastFill = (bytes: 0, of: 0)
    /// What is lent for posted reads has room for so many bytes; 0 before the first has come.
    private var standardRoom = 0
    /// As much as that, or less, and nothing larger is ever asked for.
    private let maximumRoom: Int
    /// Bytes of the stream that have come.
    private var came = 0
    /// As far as to this byte of the stream reads may grow. (I5.12)
    private var growsUpTo: Int
    private(set) var counters = Counters()

    /// What a receiver has seen.
    struct Counters {
        /// Reads that came before an earlier one.
        var early: UInt32 = 0
        /// Packets of reads with a buffer, and of waits.
        var (reads, waits): (UInt32, UInt32) = (0, 0)
        /// Waits after which there was nothing to be read.
        var vainWaits: UInt32 = 0
    }

    /// A receiver that has posted nothing yet.
    init(limit: Int, first: SequenceNumber = .init(0), maximumRoom: Int = 0, growsUpTo: Int = .max) {
        (self.limit, self.maximumRoom, self.growsUpTo, next) = (limit, maximumRoom, growsUpTo, first)
        window = ReorderWindow(capacity: limit, first: first)
    }

    /// Nothing will come any more, and everything that came has been taken out. (I5.7)
    var isIdle: Bool { isQuiet && window.count == 0 }

    /// Nothing is posted, and no packet is under way. What came before may still be in the window.
    var isQuiet: Bool { posted == 0 && !isWaiting && inLine == nil }

    /// Something is to be taken out.
    var hasNext: Bool { window.hasNext || waitFailure != 0 && window.expected == next }

    /// Chunks in the window, the most that ever were, and the number that it waits for.
    var waiting: (now: Int, most: Int, expected: SequenceNumber) {
        (window.count, window.peak, window.expected)
    }

    // MARK: Posting

    /// Posts as much as the policy says. The only place that posts for receiving: after the start, a packet, a slot that came
    /// home, a grant, a pause. (I5.8)
    ///
    /// - Parameters:
    ///   - policy: Lends the buffers. Without one each slot is posted, with memory of its own.
    ///   - slot: One that is out and has nothing to do: it is posted first, or goes home.
    ///   - mayWait: Whether a wait may be posted: not while the handler is being called. (I5.9)
    mutating func replan(
        _ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?, with slot: Chunk? = nil, mayWait: Bool
    ) {
        var spare = slot
        while !hasStopped, pauses.isEmpty, !isWaiting, inLine == nil, let slot = spare.take() ?? join(end) {
            switch plan(slot, end, policy) {
            case .read(let buffer): post(slot, buffer, end)
            case .readNow(let buffer): if !readNow(slot, buffer, end) { spare = slot }
            case .wait:
                sendHome(slot, end, policy)
                // Not while the handler is called, or is about to be: the look after that comes before the wait. (I5.9)
                if mayWait, !hasNext { wait(end) } else { owesWait = true }
                return
            case .later:
                slot.place = .inLine
                inLine = slot
            case .enough: return sendHome(slot, end, policy)
            }
        }
        if let spare { sendHome(spare, end, policy) }
    }

    /// What fills its buffers is a stream: for it nothing is posted any more. What is there is read at once, into a buffer
    /// that is larger than what came last; and when there is nothing, the connection waits without one. (I5.12)
    private mutating func plan(
        _ slot: Chunk, _ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?
    ) -> ReceivePlan {
        returnLarger(of: slot, end)
        if lastFill.bytes >= standardRoom, standardRoom > 0, standardRoom < room {
            // Both give back what the slot has from a posted read.
            if posted > 0 { return .enough }
            if !isReadable { return .wait }
            if let buffer = end.takeLarger(over: lastFill.bytes) {
                policy?.release(slot)
                slot.hasLarger = true
                return .readNow(buffer)
            }
        }
        return policy?.plan(slot, ReceiveNeed(posted: posted, isReadable: isReadable, lastFill: lastFill))
            ?? .read(slot.memory)
    }

    /// The most that may be read at once, where that is more than a chunk: nothing is read along of what stands behind the bytes
    /// that are expected.
    private var room: Int { min(maximumRoom, growsUpTo - came) }

    /// The handler knows what the bytes up to this one are.
    mutating func expect(upTo end: Int) { growsUpTo = max(growsUpTo, end) }

    private func returnLarger(of slot: Chunk, _ end: some ReceivingEnd) {
        guard slot.hasLarger, let buffer = slot.buffer else { return }
        (slot.hasLarger, slot.buffer) = (false, nil)
        end.returnLarger(buffer)
    }

    /// Number and post are one step, so the order of the numbers is the order of the posts, and that is the order in which
    /// the system fills them. (I5.1)
    private mutating func post(
        _ slot: Chunk, _ buffer: UnsafeMutableRawBufferPointer, _ end: some ReceivingEnd
    ) {
        slot.buffer = buffer
        slot.place = .posted
        posted += 1
        number(slot)
        do throws(SystemError) {
            try end.post(slot)
        } catch {
            // No packet will come. The number is given, so the failure takes its place in the stream. (I5.2)
            posted -= 1
            put(slot, 0, error.code)
        }
    }

    /// An immediate read never stays pending, so it is behind everything that is numbered already, and has its number when it
    /// has brought something. (I5.9) False when there was nothing.
    private mutating func readNow(
        _ slot: Chunk, _ buffer: UnsafeMutableRawBufferPointer, _ end: some ReceivingEnd
    ) -> Bool {
        slot.buffer = buffer
        let part = slot.hasLarger ? UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(room)) : buffer
        do throws(SystemError) {
            guard let count = try end.readNow(into: part) else {
                isReadable = false
                if exchange(&hasWaited, with: false) { counters.vainWaits &+= 1 }
                return false
            }
            (isReadable, hasWaited) = (count == part.count, false)
            number(slot)
            put(slot, count, 0)
        } catch {
            number(slot)
            put(slot, 0, error.code)
        }
        return true
    }

    private mutating func wait(_ end: some ReceivingEnd) {
        isWaiting = true
        do throws(SystemError) { try end.postWait() } catch { waitCompleted(error.code) }
    }

    private mutating func number(_ slot: Chunk) {
        slot.number = next
        next = next.next
    }

    // MARK: Packets

    /// A read has completed. One that was called off before any byte came is a gap: it has a number, so it takes its turn, and
    /// the handler does not hear of it. (I5.8)
    mutating func completed(_ slot: Chunk, _ bytes: Int, _ error: Int32) {
        posted -= 1
        counters.reads &+= 1
        if error == ECANCELED {
            put(slot, 0, 0, isGap: true)
        } else {
            put(slot, bytes, error)
        }
    }

    /// The wait has completed: it brings no bytes, and says nothing of the end. One that failed has *taken* the socket's error
    /// from it, so that the next read would find 0 bytes, as at a clean end: its error is the failure, behind every number.
    mutating func waitCompleted(_ error: Int32) {
        isWaiting = false
        guard error != ECANCELED else { return }
        counters.waits &+= 1
        (isReadable, hasWaited) = (true, true)
        guard error != 0 else { return }
        waitFailure = error
        hasStopped = true
    }

    /// Puts a read to where it waits for its turn. Behind the end and behind a failure nothing is posted.
    private mutating func put(_ slot: Chunk, _ bytes: Int, _ failure: Int32, isGap: Bool = false) {
        slot.place = isGap ? .gap : .held
        (slot.count, slot.failure) = (bytes, failure)
        // Gaps come in the order of the asking; nothing waits for them.
        if slot.number != window.expected, !isGap {
            counters.early &+= 1
            Recorder.held(slot.identity, "read \(slot.number) came before read \(window.expected)")
        }
        // There are no more numbers out than the window has room for. (I5.3)
        let place = window.insert(slot, slot.number)
        precondition(place == .taken, "a read came twice")
        if isGap { return }
        came += bytes
        if bytes == 0 { hasStopped = true }
        guard let buffer = slot.buffer else { return }
        lastFill = (bytes, buffer.count)
        if !slot.hasLarger { standardRoom = buffer.count }
        // As much as there was room for: there will be more. If not, a look costs little.
        if posted == 0, bytes == buffer.count { isReadable = true }
    }

    // MARK: Taking out

    /// The next in order: bytes, the end, a failure or a gap.
    mutating func takeNext() -> Chunk? { window.takeNext() }

    /// Why a wait has failed, when everything before it has been taken out. Once.
    mutating func takeWaitFailure() -> Int32? {
        guard waitFailure != 0, window.expected == next else { return nil }
        return exchange(&waitFailure, with: 0)
    }

    /// The end has its turn. True for the first of those that are pending; the others are no news.
    mutating func end() -> Bool { !exchange(&hasEnded, with: true) }

    /// Whether there may be something to post now that the handler is not being called. A wait may be owed; and when the handler
    /// has been called with bytes that no posted read has brought, there is one more look before the next wait: what came
    /// meanwhile needs no packet. (I5.9)
    mutating func isDue(afterDelivery: Bool) -> Bool {
        let isOwed = exchange(&owesWait, with: false)
        guard afterDelivery, posted == 0, !isWaiting else { return isOwed }
        isReadable = true
        return true
    }

    // MARK: Slots

    private mutating func join(_ end: some ReceivingEnd) -> Chunk? {
        guard out < limit else { return nil }
        guard let slot = end.takeSlot() else {
            // Without any slot nothing would ever be read again.
            if out == 0 { waitCompleted(ENOBUFS) }
            return nil
        }
        slot.place = .held
        slot.nextSlot = slots
        slots = slot
        out += 1
        return slot
    }

    /// A slot goes home. Its loan ends, whatever there is of it. (I5.5)
    private mutating func sendHome(
        _ slot: Chunk, _ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?
    ) {
        returnLarger(of: slot, end)
        policy?.release(slot)
        if slots === slot {
            slots = slot.nextSlot
        } else {
            var before = slots
            while let neighbour = before, neighbour.nextSlot !== slot { before = neighbour.nextSlot }
            before?.nextSlot = slot.nextSlot
        }
        slot.nextSlot = nil
        out -= 1
        slot.reset()
        end.returnSlot(slot)
    }

    /// Bytes that have come with the connection itself: they are the first of the stream. At most as many as the slots have
    /// room for.
    mutating func begin(with bytes: UnsafeRawBufferPointer, _ end: some ReceivingEnd) {
        var rest = bytes[...]
        while !rest.isEmpty, let slot = join(end) {
            slot.fill(UnsafeRawBufferPointer(rebasing: rest))
            rest = rest.dropFirst(slot.count)
            number(slot)
            put(slot, slot.count, 0)
        }
        if !rest.isEmpty { waitCompleted(ENOBUFS) }
    }

    /// The policy has served the slot that was in its line: it is asked again, and finds the charge. If nothing is to be posted
    /// any more the slot goes home.
    mutating func granted(
        _ slot: Chunk, _ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?, mayWait: Bool
    ) {
        precondition(inLine === slot, "granted without having been in a line")
        inLine = nil
        slot.place = .held
        replan(end, policy, with: slot, mayWait: mayWait)
    }

    /// Asks for the buffers of posted reads back, and for the slot in the line. Held ones keep theirs until they come home.
    mutating func callOff(_ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?) {
        var slot = slots
        while let next = slot {
            if next.place == .posted { end.cancel(next) }
            slot = next.nextSlot
        }
        leaveLine(end, policy)
    }

    /// Posts nothing more, and asks for everything that is posted back: it is quiet when the packets are here.
    mutating func comeToRest(_ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?) {
        pause(.rest)
        callOff(end, policy)
        if isWaiting { end.cancelWait() }
    }

    private mutating func leaveLine(_ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?) {
        // One that has been served already comes back with its grant.
        guard let slot = inLine, policy?.withdraw(slot) == true else { return }
        inLine = nil
        sendHome(slot, end, policy)
    }

    /// The connection is over: nothing is posted any more, and what is pending comes back.
    mutating func stop(_ end: some ReceivingEnd, _ policy: (any ReceivePolicy)?) {
        hasStopped = true
        leaveLine(end, policy)
    }

    mutating func pause(_ reason: PauseReasons) { pauses.formUnion(reason) }

    mutating func resume(_ reason: PauseReasons) { pauses.subtract(reason) }

    var isPaused: Bool { !pauses.isEmpty }
}
