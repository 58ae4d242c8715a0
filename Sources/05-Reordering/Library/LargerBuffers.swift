import Kernel

/// Memory for connections whose clients send faster than chunks are filled: buffers of 16, 64 and 256 KiB. (I5.12)
///
/// Each read costs a call to the system, a packet, and a send for what goes back, whatever it brings: so a stream is as fast
/// as one read is large. But what is posted waits, and most clients are silent. So a larger buffer is never posted: it is
/// lent for an immediate read, when bytes are known to be there, and goes back when the last share in them is gone. It
/// is taken if there is one at once, and no connection ever waits for it.
///
/// Some are kept for reuse: large memory that is fetched from the system for each read costs a fault for each of its pages.
/// Any thread may use it.
public final class LargerBuffers: @unchecked Sendable {
    /// The sizes that there are.
    public static let sizes = [16 << 10, 64 << 10, 256 << 10]
    /// Buffers of each size that are kept while none is used.
    static let maximumFree = 8
    /// The most bytes that are out at a time.
    public let limit: Int
    private let largest: Int
    private let lock = Lock()
    // Guarded by the lock.
    private var free = sizes.map { _ in [UnsafeMutableRawBufferPointer]() }
    private var count = Counters()

    /// What is out, in bytes.
    public struct Counters: Sendable, Equatable {
        /// Lent now.
        public fileprivate(set) var inUse = 0
        /// The most that ever was at a time.
        public fileprivate(set) var peak = 0
    }

    init(upTo largest: Int, limit: Int) {
        self.largest = largest
        self.limit = limit
    }

    deinit { for buffer in free.joined() { BufferMemory.giveBack(buffer) } }

    /// The counters.
    public var counters: Counters { lock.locked { count } }

    /// The smallest that has room for more than so many bytes, or else the largest; while too much is out, a smaller one, or
    /// none.
    func take(over bytes: Int) -> UnsafeMutableRawBufferPointer? {
        let found: (size: Int, buffer: UnsafeMutableRawBufferPointer?)? = lock.locked {
            var chosen: Int?
            for (index, size) in LargerBuffers.sizes.enumerated()
            where size <= largest && count.inUse + size <= limit {
                chosen = index
                if size > bytes { break }
            }
            guard let chosen else { return nil }
            count.inUse += LargerBuffers.sizes[chosen]
            count.peak = max(count.peak, count.inUse)
            return (LargerBuffers.sizes[chosen], free[chosen].popLast())
        }
        // Memory is asked for without the lock.
        return found.map { $0.buffer ?? BufferMemory.take($0.size) }
    }

    func giveBack(_ buffer: UnsafeMutableRawBufferPointer) {
        let isKept = lock.locked {
            count.inUse -= buffer.count
            let index = LargerBuffers.sizes.firstIndex(of: buffer.count)!
            guard free[index].count < LargerBuffers.maximumFree else { return false }
            free[index].append(buffer)
            return true
        }
        if !isKept { BufferMemory.giveBack(buffer) }
    }
}
