import Glibc

/// Memory for the buffers of operations. A large one consists of pages of its own, and these are the system's again as
/// soon as it is given back: the allocator would keep them, and with them the memory of a peak.
///
/// Any thread may use it. Win32 counterpart: `VirtualAlloc` and `VirtualFree`.
public enum BufferMemory {
    /// Bytes from which on a buffer has pages of its own.
    private static let large = 128 << 10

    /// A buffer of this many bytes, the caller's until it is given back. Ends the program when there is no memory, as every allocation
    /// does.
    public static func take(_ bytes: Int) -> UnsafeMutableRawBufferPointer {
        guard bytes >= large else { return .allocate(byteCount: bytes, alignment: 64) }
        let pages = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let pages, pages != MAP_FAILED else { fatalError("no memory for a buffer of \(bytes) bytes") }
        return UnsafeMutableRawBufferPointer(start: pages, count: bytes)
    }

    /// Takes a buffer back, whole. No operation may have it any more.
    public static func giveBack(_ buffer: UnsafeMutableRawBufferPointer) {
        if buffer.count >= large { munmap(buffer.baseAddress, buffer.count) } else { buffer.deallocate() }
    }
}
