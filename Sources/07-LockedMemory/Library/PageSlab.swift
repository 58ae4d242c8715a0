import Glibc
import Kernel

/// Buffers that begin where a page begins and fill whole pages: each costs as many pages as its size says, and shares
/// none with another. (I7.1)
///
/// All are cut out of one mapping. Buffers that come back are kept for reuse, up to a bound; the memory of the others
/// goes back to the system, and their places stay. Taking and giving back allocate nothing. Any thread may use it.
///
/// Win32 counterpart: `VirtualAlloc`.
public final class PageSlab: @unchecked Sendable {
    /// Bytes in each buffer: what was asked for, in whole pages.
    public let bufferSize: Int
    /// The most buffers that are out at a time.
    public let capacity: Int
    /// The most buffers that keep their memory while they are free.
    public let maximumFree: Int
    // Mapped for as long as the slab lives; pages cost memory from their first touch on.
    private let mapping: UnsafeMutableRawPointer
    private let lock = Lock()
    // Guarded by the lock. The free places: those with memory from the left, those without from the right.
    private let places: UnsafeMutableBufferPointer<Int32>
    private let isOut: UnsafeMutableBufferPointer<Bool>
    private var count = Counters()
    private var cold: Int

    /// What a slab has.
    public struct Counters: Sendable, Equatable {
        /// Buffers that are out.
        public fileprivate(set) var inUse = 0
        /// The most that were out at a time.
        public fileprivate(set) var peak = 0
        /// Buffers that wait for reuse, with their memory.
        public fileprivate(set) var free = 0
    }

    /// A slab with room for `capacity` buffers.
    ///
    /// - Parameter bufferSize: In bytes; rounded up to whole pages.
    /// - Throws: EINVAL for no buffer or no byte, ENOMEM when the system has not as many addresses.
    public init(bufferSize: Int, capacity: Int, maximumFree: Int = 1_024) throws(SystemError) {
        guard bufferSize > 0, capacity > 0, capacity <= Int32.max else {
            throw SystemError.invalid("make a slab of \(capacity) buffers of \(bufferSize) bytes")
        }
        self.bufferSize = Page.count(bytes: bufferSize) * Page.size
        self.capacity = capacity
        self.maximumFree = max(0, maximumFree)
        let (length, isTooMuch) = self.bufferSize.multipliedReportingOverflow(by: capacity)
        let mapping = mmap(
            nil, isTooMuch ? .max : length, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_NORESERVE), -1, 0)
        guard let mapping, mapping != MAP_FAILED else {
            throw SystemError(ENOMEM, attempted: "map \(capacity) buffers")
        }
        // Huge pages would make one touched buffer cost the memory of many.
        madvise(mapping, length, MADV_NOHUGEPAGE)
        self.mapping = mapping
        places = .allocate(capacity: capacity)
        isOut = .allocate(capacity: capacity)
        isOut.initialize(repeating: false)
        // The first place is taken first.
        for index in 0..<capacity { places[index] = Int32(index) }
        cold = capacity
    }

    deinit {
        munmap(mapping, bufferSize * capacity)
        places.deallocate()
        isOut.deallocate()
    }

    /// The counters.
    public var counters: Counters { lock.locked { count } }

    /// A buffer, with whatever an earlier owner left in it; nil when all are out. It is the caller's until it is given
    /// back.
    public func take() -> UnsafeMutableRawBufferPointer? {
        lock.lock()
        defer { lock.unlock() }
        let place: Int
        if count.free > 0 {
            count.free -= 1
            place = Int(places[count.free])
        } else if cold > 0 {
            place = Int(places[capacity - cold])
            cold -= 1
        } else {
            return nil
        }
        isOut[place] = true
        count.inUse += 1
        count.peak = max(count.peak, count.inUse)
        return UnsafeMutableRawBufferPointer(start: mapping + place * bufferSize, count: bufferSize)
    }

    /// Takes a buffer back. It must be one of this slab's that is out, whole: anything else is a mistake in the program
    /// that would give one buffer to two owners later on, and traps here.
    public func giveBack(_ buffer: UnsafeMutableRawBufferPointer) {
        let distance = buffer.baseAddress.map { $0 - mapping } ?? -1
        precondition(
            distance >= 0 && distance < bufferSize * capacity && distance % bufferSize == 0
                && buffer.count == bufferSize, "given to a slab that it is not from")
        let place = distance / bufferSize
        lock.lock()
        defer { lock.unlock() }
        precondition(isOut[place], "given back twice")
        isOut[place] = false
        count.inUse -= 1
        if count.free < maximumFree {
            places[count.free] = Int32(place)
            count.free += 1
        } else {
            // The address stays, the memory goes. Under the lock: no other is given the place meanwhile.
            madvise(buffer.baseAddress, bufferSize, MADV_DONTNEED)
            cold += 1
            places[capacity - cold] = Int32(place)
        }
    }
}
