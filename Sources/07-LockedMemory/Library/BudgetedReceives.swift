import Kernel
import Reordering
import Synchronization

/// How connections wait for bytes when memory that is locked has a limit: a policy for chapter 05's connections.
///
/// It says of every slot whether it is posted with a buffer, which is charged first; whether the connection waits without
/// one; or whether the slot has to wait in the line. It posts nothing and calls no connection while a lock is held:
/// `settle` does what is left to be told. (I7.7)
///
/// Any thread may use it; the calls for one connection come under that connection's lock.
public final class BudgetedReceives: ReceivePolicy {
    /// How it chooses between the modes.
    public enum Choice: Sendable, Equatable, CustomStringConvertible {
        /// Buffers, always. A connection for whose buffer there is no budget waits for it.
        case buffered
        /// Zero bytes, always.
        case zeroByte
        /// Buffers while there are few connections, zero bytes while there are many.
        case adaptive(ReceiveThresholds)
        /// So many receives with buffers, and a zero-byte receive behind them. It is here to be measured.
        case mixed(reads: Int)

        /// In a word.
        public var description: String {
            switch self {
            case .buffered: "buffered"
            case .zeroByte: "zero-byte"
            case .adaptive: "adaptive"
            case .mixed: "mixed"
            }
        }

        var modes: ModeSwitch {
            switch self {
            case .buffered, .mixed: ModeSwitch(.buffered, changingAt: nil)
            case .zeroByte: ModeSwitch(.zeroByte, changingAt: nil)
            case .adaptive(let thresholds): ModeSwitch(.buffered, changingAt: thresholds)
            }
        }
    }

    /// How it chooses.
    public let choice: Choice
    /// The pages that posted receives may lock.
    public let budget: PageBudget
    /// Where the buffers come from.
    public let slab: PageSlab
    private let modes: ModeSwitch
    private let shortage = BufferLine()
    /// The mode has changed to zero bytes, and the connections have not been asked for their buffers yet.
    private let owesChange = Atomic<Bool>(false)

    /// A policy, for one service.
    public init(_ choice: Choice, budget: PageBudget, slab: PageSlab) {
        self.choice = choice
        self.budget = budget
        self.slab = slab
        modes = choice.modes
    }

    /// How connections wait for bytes at this moment.
    public var mode: ReceiveMode { modes.mode }

    /// How often the mode has changed.
    public var changesMade: (toZeroByte: Int, toBuffered: Int) { modes.changesMade }

    /// Connections that wait for a buffer, since the slab has none left.
    public var withoutBuffer: Int { shortage.count }

    // MARK: Under the lock of the slot's connection

    package func plan(_ claim: SlotClaim, _ need: ReceiveNeed) -> ReceivePlan {
        // The mode first, and then the line: see `later`.
        let mode = mode
        if claim.takeGrant() {
            if claim.isCharged, mode == .buffered { return .read(claim.buffer!) }
        } else if !shortage.isEmpty {
            // Others wait for a buffer: what this slot has from its last read is theirs.
            release(claim)
        }
        switch (choice, mode) {
        case (.mixed(let reads), _):
            // What the wait has told of lies behind all that was posted before it. (I5.9)
            if need.isReadable || need.posted >= reads || !charged(claim) {
                return unbuffered(claim, need, besideReads: true)
            }
        case (.adaptive, .buffered):
            // While others wait for a buffer, none is kept by a client that may be silent.
            if !shortage.isEmpty || !charged(claim) {
                // A second read that finds no page is no want: or every client that talks would change the mode.
                if need.posted == 0 { ranShort() }
                return unbuffered(claim, need)
            }
        case (_, .buffered):
            if need.posted > 0 { return charged(claim) ? .read(claim.buffer!) : unbuffered(claim, need) }
            return inTurn(claim, need)
        case (_, .zeroByte):
            return unbuffered(claim, need)
        }
        return .read(claim.buffer!)
    }

    /// The only receive of its connection: with its pages, or in the line for them. (I7.3)
    private func inTurn(_ claim: SlotClaim, _ need: ReceiveNeed) -> ReceivePlan {
        guard claim.takeBuffer(from: slab, behind: shortage) else { return later(claim) }
        if claim.isCharged, budget.renew(claim.bytes, of: claim) { return .read(claim.buffer!) }
        do throws(SystemError) {
            return try budget.chargeOrWait(claim.bytes, to: claim) ? .read(claim.buffer!) : .later
        } catch {
            // It would wait for ever. So it waits as a connection without a budget does, and is not closed.
            return unbuffered(claim, need)
        }
    }

    /// Whether the slot has a buffer and its pages, without waiting for either.
    private func charged(_ claim: SlotClaim) -> Bool {
        guard claim.takeBuffer(from: slab, behind: shortage) else { return false }
        if claim.isCharged, budget.renew(claim.bytes, of: claim) { return true }
        return (try? budget.charge(claim.bytes, to: claim)) != nil
    }

    /// Nothing is charged: what is there is read at once; and when there is nothing, the connection waits with empty hands.
    /// (I7.4)
    private func unbuffered(_ claim: SlotClaim, _ need: ReceiveNeed, besideReads: Bool = false) -> ReceivePlan
    {
        if claim.isCharged { budget.refund(claim) }
        // Reads that are still out come first: those that were cancelled to change over, or the one that was charged.
        let mayGoOn = need.posted == 0 || besideReads
        if need.isReadable, mayGoOn {
            if claim.takeBuffer(from: slab, behind: shortage) { return .readNow(claim.buffer!) }
            if need.posted == 0 { return later(claim) }
        }
        giveBack(claim)
        return mayGoOn && !need.isReadable ? .wait : .enough
    }

    private func later(_ claim: SlotClaim) -> ReceivePlan {
        shortage.append(claim)
        // In the line first, and then a look at the mode: either a slot that would keep its buffer in buffered mode sees the
        // line, or this sees the mode, and asks for the buffers of all.
        ranShort()
        return .later
    }

    private func ranShort() {
        if modes.budgetRanShort() { owesChange.store(true, ordering: .releasing) }
    }

    package func release(_ claim: SlotClaim) {
        _ = claim.takeGrant()
        // First the pages, then the buffer: nothing is charged for memory that another has already.
        if claim.isCharged { budget.refund(claim) }
        giveBack(claim)
    }

    private func giveBack(_ claim: SlotClaim) {
        guard let buffer = claim.buffer else { return }
        claim.buffer = nil
        slab.giveBack(buffer)
        shortage.owe()
    }

    package func withdraw(_ claim: SlotClaim) -> Bool {
        guard budget.withdraw(claim) || shortage.withdraw(claim) else { return false }
        giveBack(claim)
        return true
    }

    // MARK: Without a lock

    /// The number of connections has changed.
    public func connectionsAre(_ count: Int) {
        if modes.connectionsAre(count) { owesChange.store(true, ordering: .releasing) }
    }

    /// Serves the lines, and after a change of mode asks every connection for the buffers that it has posted. (I7.5)
    public func settle(_ connections: () -> [StreamConnection]) {
        serveLines()
        if takeChange() { for connection in connections() { connection.reconsider() } }
    }

    package func serveLines() {
        budget.serve()
        shortage.serve(from: slab)
    }

    /// True once for each change of mode that connections have to be told of.
    package func takeChange() -> Bool {
        owesChange.load(ordering: .relaxed) && owesChange.exchange(false, ordering: .acquiring)
    }
}

extension BudgetedReceives {
    /// What the next bytes are waited for with.
    public func plan(_ slot: Chunk, _ need: ReceiveNeed) -> ReceivePlan { plan(SlotClaim.of(slot), need) }
    /// Buffer and pages of the slot go back.
    public func release(_ slot: Chunk) { release(SlotClaim.of(slot)) }
    /// Takes the slot out of the line.
    public func withdraw(_ slot: Chunk) -> Bool { withdraw(SlotClaim.of(slot)) }
}
