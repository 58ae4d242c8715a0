import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: small buffers side by side, wherever there is room, and the account is kept in bytes.
final class BrokenByteAccount {
    private let arena: UnsafeMutableRawBufferPointer
    let size: Int
    private(set) var given = 0

    init(_ count: Int, of size: Int) {
        self.size = size
        arena = .allocate(byteCount: count * size, alignment: Page.size)
    }

    deinit { arena.deallocate() }

    func take() -> UnsafeMutableRawBufferPointer {
        defer { given += 1 }
        return UnsafeMutableRawBufferPointer(rebasing: arena[given * size..<(given + 1) * size])
    }

    /// What the author believes to have locked.
    var pages: Int { (given * size + Page.size - 1) / Page.size }
}

/// A buffer of ten bytes locks a page, and one that straddles a boundary locks two.
public enum PageRounding {
    private static let count = 1_000
    private static let size = 10

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "page-rounding",
        title: "a buffer of ten bytes locks a whole page, and one that straddles a boundary locks two",
        broken: { driver in
            let account = BrokenByteAccount(count, of: size)
            let all = try post(driver, PageBudget(pages: 4 * count)) { account.take() }
            let again = BrokenByteAccount(count, of: size)
            let some = try post(driver, PageBudget(pages: small)) { again.take() }
            // What the heap gives for a page is not a page: its own words stand before it.
            let heap = UnsafeMutableRawBufferPointer.allocate(byteCount: Page.size, alignment: 16)
            defer { heap.deallocate() }
            let straddling = (count * size - 1) / Page.size
            return Observation(
                happened: all.locked == count + straddling && all.posted == count && account.pages < 10
                    && some.posted == small - 1,
                lines: [
                    "\(readable(count)) receives with \(size) bytes each are pending: \(readable(count * size)) bytes",
                    "pages, as the author counts: \(account.pages)",
                    "pages, as they are locked: \(readable(all.locked)): one for each, and one more for each of the "
                        + "\(straddling) that straddle a boundary",
                    "a budget of \(small) pages was to last for \(readable(small * Page.size / size)); "
                        + "it was spent after \(some.posted)",
                    "a page's worth of bytes from the heap lies in "
                        + "\(Page.count(UnsafeRawBufferPointer(heap))) pages",
                ])
        },
        fixed: { driver in
            let slab = try PageSlab(bufferSize: size, capacity: count)
            let all = try post(driver, PageBudget(pages: 4 * count)) { slab.take()! }
            let others = try PageSlab(bufferSize: size, capacity: count)
            let some = try post(driver, PageBudget(pages: small)) { others.take()! }
            let page = try PageSlab(bufferSize: Page.size, capacity: 1).take().map {
                Page.count(UnsafeRawBufferPointer($0))
            }
            return Observation(
                happened: all.locked != count || some.posted != small || slab.bufferSize != Page.size
                    || page != 1,
                lines: [
                    "\(readable(count)) receives with a buffer of the slab each: \(readable(all.locked)) pages, "
                        + "and for the same price \(readable(slab.bufferSize)) bytes in each",
                    "a budget of \(small) pages lasts for \(some.posted)",
                    "a page's worth of bytes from the slab lies in \(page ?? 0) page",
                ])
        })

    private static let small = 512

    /// Posts receives on one connection, and charges each, as long as the budget lasts. Returns what was pending then,
    /// and how much that locked.
    private static func post(
        _ driver: DriverKind, _ budget: PageBudget, _ take: () -> UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> (posted: Int, locked: Int) {
        let pair = try Pair()
        let port = try CompletionPort.on(driver)
        try port.associate(pair.server, key: 1)
        var posted = 0
        while posted < count {
            let reading = Reading(into: take())
            do throws(SystemError) {
                try budget.charge(UnsafeRawBufferPointer(reading.memory), to: reading)
            } catch {
                break
            }
            try pair.server.receive(reading, into: reading.memory)
            posted += 1
        }
        let locked = budget.counters.locked
        pair.server.close()
        for _ in 0..<posted {
            if let reading = try port.next().operation as? Reading { budget.refund(reading) }
        }
        port.close()
        guard budget.counters.locked == 0 else { throw SystemError(EBUSY, attempted: "get every page back") }
        return (posted, locked)
    }
}
