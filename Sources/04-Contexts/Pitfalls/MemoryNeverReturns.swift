import CKernel
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: whatever comes back is kept for the next peak.
struct BrokenEndlessList {
    let list = FreeList<IOContext>(maximumFree: .max) { MemoryNeverReturns.touchedContext() }
}

/// Memory rises with the peak and stays there.
public enum MemoryNeverReturns {
    private static let peak = 1_000
    private static let bytes = 64 * 1024

    /// For the demo and the tests, which run it in a process that does nothing else: the system counts all memory of a
    /// process.
    public static let pitfall = Pitfall(
        slug: "memory-never-returns",
        title: "everything is kept for reuse, and memory stays at its peak",
        broken: { _ in run(BrokenEndlessList().list) },
        fixed: { _ in run(FreeList(maximumFree: 16) { touchedContext() }) })

    /// A context whose whole buffer is in memory.
    static func touchedContext() -> IOContext {
        let context = IOContext(capacity: bytes)
        _ = [UInt8](repeating: 1, count: bytes).withUnsafeBytes { context.fill($0) }
        return context
    }

    /// 1,000 contexts are in use at once, and then none.
    private static func run(_ list: FreeList<IOContext>) -> Observation {
        malloc_trim(0)
        let before = Resources.residentBytes
        let high = use(list) - before
        // Freed memory goes back to the allocator first; this passes it on to the system.
        malloc_trim(0)
        let left = Resources.residentBytes - before
        return Observation(
            happened: left > high / 2,
            lines: [
                "\(peak) contexts of 64 KiB in use at once: \(readable(high >> 20)) MiB more than before",
                "all given back, \(list.counters.free) kept: \(readable(max(0, left) >> 20)) MiB more than before",
            ])
    }

    /// Takes and gives back; returns the memory that was resident meanwhile. A function of its own, so that afterwards
    /// nobody but the list has a context.
    @inline(never)
    private static func use(_ list: FreeList<IOContext>) -> Int {
        let taken = (0..<peak).compactMap { _ in list.take() }
        defer { for context in taken { list.giveBack(context) } }
        return Resources.residentBytes
    }
}
