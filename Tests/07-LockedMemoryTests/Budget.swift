import Glibc
import Kernel
import LockedMemory
import Stage
import Synchronization
import Testing

/// A claimant that counts how often its budget came.
private final class Claimant: PageClaimant, @unchecked Sendable {
    var claim = PageClaim()
    private let came = Atomic<Int>(0)
    let served: (@Sendable (Claimant) -> Void)?

    init(_ served: (@Sendable (Claimant) -> Void)? = nil) { self.served = served }

    func budgetCame() {
        came.add(1, ordering: .relaxed)
        served?(self)
    }

    var times: Int { came.load(ordering: .relaxed) }
}

/// Memory that begins where a page begins.
private struct Pages: @unchecked Sendable {
    let memory: UnsafeRawBufferPointer

    init(_ count: Int) {
        memory = .init(
            UnsafeMutableRawBufferPointer.allocate(byteCount: count * Page.size, alignment: Page.size))
    }

    func callAsFunction(_ count: Int, from first: Int = 0) -> UnsafeRawBufferPointer {
        .init(rebasing: memory[first * Page.size..<(first + count) * Page.size])
    }

    func free() { memory.deallocate() }
}

@Suite("Chapter 07: the budget of locked pages")
struct Chapter07LockedMemoryBudget {
    // I7.1
    @Test("every buffer counts the pages that it touches, wherever it lies")
    func counting() {
        let pages = Pages(4)
        defer { pages.free() }
        let size = Page.size
        let base = Int(bitPattern: pages.memory.baseAddress!)
        for start in [0, 1, 5, size / 2, size - 10, size - 1, size, size + 1] {
            for length in [0, 1, 2, 9, 10, 11, size - 1, size, size + 1, 2 * size, 2 * size + 2] {
                let buffer = UnsafeRawBufferPointer(rebasing: pages.memory[start..<start + length])
                let touched = Set((start..<start + length).lazy.map { (base + $0) / size })
                #expect(Page.count(buffer) == touched.count, "\(length) bytes from \(start) on")
            }
        }
        #expect(Page.count(UnsafeRawBufferPointer(start: nil, count: 0)) == 0)
        #expect([0, 1, size, size + 1].map { Page.count(bytes: $0) } == [0, 1, 1, 2])
    }

    // I7.1, I7.2
    @Test(
        "the budget is exact: the last page is given, one more is refused, and what comes back can be given again"
    )
    func exact() throws {
        let pages = Pages(4)
        defer { pages.free() }
        let budget = PageBudget(pages: 3)
        let (one, two, three) = (Claimant(), Claimant(), Claimant())
        try budget.charge(pages(1), to: one)
        try budget.charge(pages(2), to: two)
        #expect(budget.counters.locked == 3)
        #expect(performing { try budget.charge(pages(1), to: three) } == ENOBUFS)
        #expect(!three.claim.isHeld)
        #expect(budget.counters.locked == 3)
        #expect(budget.counters.refused == 1)
        budget.giveBack(two)
        budget.giveBack(two)
        #expect(budget.counters.locked == 1)
        try budget.charge(pages(2), to: three)
        budget.giveBack(one)
        budget.giveBack(three)
        #expect(budget.counters.locked == 0)
        #expect(budget.counters.peak == 3)
        // An empty buffer costs nothing, and goes in any case.
        let none = PageBudget(pages: 0)
        try none.charge(UnsafeRawBufferPointer(start: nil, count: 0), to: one)
        #expect(performing { try none.charge(pages(1), to: two) } == ENOBUFS)
    }

    // I7.2
    @Test("who is charged twice stops the program where the mistake is")
    func chargedTwice() async {
        await #expect(processExitsWith: .failure) {
            let pages = Pages(2)
            let budget = PageBudget(pages: 8)
            let one = Claimant()
            try budget.charge(pages(1), to: one)
            try budget.charge(pages(1, from: 1), to: one)
        }
    }

    // I7.3
    @Test("those who wait are served in their order, and none overtakes")
    func line() throws {
        let pages = Pages(4)
        defer { pages.free() }
        let budget = PageBudget(pages: 4)
        let owner = Claimant()
        try budget.charge(pages(4), to: owner)
        let order = Guarded()
        let waiting = (0..<4).map { number in Claimant { _ in order.append(number) } }
        for claimant in waiting {
            #expect(try !budget.chargeOrWait(pages(1), to: claimant))
        }
        #expect(budget.counters.waiting == 4)
        budget.giveBack(owner)
        #expect(order.values == [0, 1, 2, 3])
        #expect(budget.counters.locked == 4)

        // The first needs three pages. One page is free, and one is enough for the second: it waits all the same.
        let (large, small, late) = (Claimant(), Claimant(), Claimant())
        budget.giveBack(waiting[0])
        #expect(try !budget.chargeOrWait(pages(3), to: large))
        #expect(try !budget.chargeOrWait(pages(1), to: small))
        #expect(performing { try budget.charge(pages(1), to: late) } == ENOBUFS)
        budget.giveBack(waiting[1])
        #expect((large.times, small.times) == (0, 0))
        budget.giveBack(waiting[2])
        #expect((large.times, small.times) == (1, 0))
        budget.giveBack(waiting[3])
        #expect((large.times, small.times) == (1, 1))
        #expect(budget.counters.waiting == 0)
        budget.giveBack(large)
        budget.giveBack(small)
        #expect(budget.counters.locked == 0)
    }

    // I7.3
    @Test("who leaves the line lets the next one through; who was served is told so")
    func withdrawing() throws {
        let pages = Pages(4)
        defer { pages.free() }
        let budget = PageBudget(pages: 3)
        let owner = Claimant()
        try budget.charge(pages(2), to: owner)
        let (large, small, last) = (Claimant(), Claimant(), Claimant())
        #expect(try !budget.chargeOrWait(pages(3), to: large))
        #expect(try !budget.chargeOrWait(pages(1), to: small))
        #expect(try !budget.chargeOrWait(pages(1), to: last))
        #expect(budget.leave(large))
        #expect(small.times == 1)
        #expect(!budget.leave(small))
        #expect(!budget.leave(large))
        #expect(budget.leave(last))
        #expect(budget.counters.waiting == 0)
        budget.giveBack(small)
        budget.giveBack(owner)
        #expect(budget.counters.locked == 0)
        // More than there is in all would wait for ever.
        #expect(performing { _ = try budget.chargeOrWait(pages(4), to: large) } == ENOBUFS)
        #expect(budget.counters.waiting == 0)
    }

    // I7.3
    @Test(
        "who would wait for ever is refused: the system locks nothing, and no page can come back",
        .disabled(if: isSanitized, "a sanitizer makes mlock do nothing"))
    func refusedBySystem() {
        // The second page of a process is never there: it cannot be locked, whatever rights this one has.
        let nowhere = UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: Page.size), count: Page.size)
        let budget = PageBudget(pages: 4, locking: .system)
        #expect(performing { _ = try budget.chargeOrWait(nowhere, to: Claimant()) } == ENOBUFS)
        #expect(performing { try budget.charge(nowhere, to: Claimant()) } == ENOBUFS)
        #expect(budget.counters.waiting == 0 && budget.counters.locked == 0)
    }

    // I7.2, I7.3
    @Test("a buffer that is posted again stays charged, unless others wait or it was charged for less")
    func renewing() throws {
        let pages = Pages(4)
        defer { pages.free() }
        let budget = PageBudget(pages: 2)
        let (one, other) = (Claimant(), Claimant())
        try budget.charge(pages(2), to: one)
        #expect(budget.again(pages(2), of: one))
        #expect(one.claim.isHeld)
        #expect(try !budget.chargeOrWait(pages(1), to: other))
        #expect(!budget.again(pages(2), of: one))
        #expect(!one.claim.isHeld)
        #expect(other.times == 1)
        // It was charged for one page, and is to be posted with two.
        #expect(!budget.again(pages(2), of: other))
        #expect(!other.claim.isHeld)
        #expect(budget.counters.locked == 0)
    }

    // I7.1, I7.2, I7.3
    @Test(
        "four threads charge, wait, withdraw and give back at random: never over the limit, and nothing is left"
    )
    func random() async throws {
        try await onAThread {
            let pages = Pages(3)
            defer { pages.free() }
            let limit = 7
            let budget = PageBudget(pages: limit)
            let outstanding = Counter()
            inThreads(4) { number in
                var state = UInt64(number + 1) &* 0x9e37_79b9_7f4a_7c15
                func next(_ bound: UInt64) -> Int {
                    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                    return Int(state >> 33) % Int(bound)
                }
                for _ in 0..<3_000 {
                    let count = next(3) + 1
                    let gate = Gate()
                    let claimant = Claimant { _ in gate.open() }
                    var isHeld = true
                    if next(2) == 0 {
                        isHeld = (try? budget.charge(pages(count), to: claimant)) != nil
                    } else if (try? budget.chargeOrWait(pages(count), to: claimant)) == false {
                        // Either it leaves the line, or it has been served and must be told.
                        if next(2) == 0, budget.leave(claimant) {
                            isHeld = false
                        } else {
                            isHeld = gate.pass()
                            #expect(isHeld)
                        }
                    }
                    guard isHeld else { continue }
                    #expect(outstanding.add(count) <= limit)
                    outstanding.add(-count)
                    budget.giveBack(claimant)
                }
            }
            let counters = budget.counters
            #expect(counters.locked == 0)
            #expect(counters.waiting == 0)
            #expect(counters.peak <= limit)
        }
    }
}

/// A list that threads append to.
private final class Guarded: @unchecked Sendable {
    private let lock = Lock()
    private var list: [Int] = []  // under the lock

    func append(_ value: Int) { lock.locked { list.append(value) } }
    var values: [Int] { lock.locked { list } }
}

/// The number of the error that `body` throws.
private func performing(_ body: () throws -> Void) -> Int32? {
    do {
        try body()
        return nil
    } catch {
        return (error as? SystemError)?.code
    }
}

/// Without a lock: gives back, and tells at once.
extension PageBudget {
    fileprivate func giveBack(_ claimant: Claimant) {
        refund(claimant)
        serve()
    }

    fileprivate func leave(_ claimant: Claimant) -> Bool {
        defer { serve() }
        return withdraw(claimant)
    }

    fileprivate func again(_ buffer: UnsafeRawBufferPointer, of claimant: Claimant) -> Bool {
        defer { serve() }
        return renew(buffer, of: claimant)
    }
}
