import Kernel
import Reordering
import Synchronization

/// What a slot of a connection holds: its buffer, and the pages that are charged for it. It stays with its slot for good.
///
/// Its fields are guarded by the lock of the slot's connection, and by the line's while it is in a line.
package final class SlotClaim: PageClaimant, @unchecked Sendable {
    /// Guarded by the budget's lock.
    package var claim = PageClaim()
    /// From the slab, from the plan on until it is released.
    package internal(set) var buffer: UnsafeMutableRawBufferPointer?
    /// Its turn in a line has come, and the connection has not asked again yet.
    private let hasGrant = Atomic<Bool>(false)
    /// Brings a worker to the connection.
    private let granted: @Sendable () -> Void

    package init(granted: @escaping @Sendable () -> Void) { self.granted = granted }

    static func of(_ slot: Chunk) -> SlotClaim {
        // Nothing else attaches anything to the slots of a service with this policy.
        if let attached = slot.attachment { return unsafeDowncast(attached, to: SlotClaim.self) }
        let claim = SlotClaim { [unowned slot] in slot.granted() }
        slot.attachment = claim
        return claim
    }

    package var isCharged: Bool { claim.isHeld }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(buffer!) }

    /// Whether it has a buffer now. While others wait for one, a new one is not taken past them.
    func takeBuffer(from slab: PageSlab, behind line: BufferLine) -> Bool {
        if buffer == nil, line.isEmpty { buffer = slab.take() }
        return buffer != nil
    }

    package func budgetCame() {
        hasGrant.store(true, ordering: .releasing)
        granted()
    }

    /// True once behind each turn.
    func takeGrant() -> Bool {
        hasGrant.load(ordering: .relaxed) && hasGrant.exchange(false, ordering: .acquiring)
    }
}

/// Slots for which the slab had no buffer left, in the order in which they came: a slab may be smaller than its service.
/// (I7.3)
final class BufferLine: @unchecked Sendable {
    private let lock = Lock()
    private var slots: [SlotClaim] = []  // under the lock
    /// Its length, to be looked at without the lock.
    private let length = Atomic<Int>(0)
    /// A buffer may be there for the first in the line.
    private let isOwed = Atomic<Bool>(false)

    var count: Int { length.load(ordering: .sequentiallyConsistent) }
    var isEmpty: Bool { count == 0 }

    /// The caller owes a `serve`: since it looked, a buffer may have come back past an empty line.
    func append(_ slot: SlotClaim) {
        lock.locked {
            slots.append(slot)
            length.store(slots.count, ordering: .sequentiallyConsistent)
        }
        isOwed.store(true, ordering: .releasing)
    }

    /// Takes a slot out; false when it is not there.
    func withdraw(_ slot: SlotClaim) -> Bool {
        if isEmpty { return false }
        return lock.locked {
            guard let index = slots.firstIndex(where: { $0 === slot }) else { return false }
            slots.remove(at: index)
            length.store(slots.count, ordering: .sequentiallyConsistent)
            return true
        }
    }

    /// A buffer has come back.
    func owe() {
        if !isEmpty { isOwed.store(true, ordering: .releasing) }
    }

    /// Without any lock: gives those in the line their buffers, for as long as there are some, and tells each.
    func serve(from slab: PageSlab) {
        guard isOwed.load(ordering: .relaxed), isOwed.exchange(false, ordering: .acquiring) else { return }
        while let slot = lock.locked({ takeFirst(slab) }) { slot.budgetCame() }
    }

    private func takeFirst(_ slab: PageSlab) -> SlotClaim? {
        guard !slots.isEmpty, let buffer = slab.take() else { return nil }
        let slot = slots.removeFirst()
        length.store(slots.count, ordering: .sequentiallyConsistent)
        slot.buffer = buffer
        return slot
    }
}
