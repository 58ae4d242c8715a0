import Glibc

/// Memory, as the system locks it: whole pages, wherever a buffer begins and ends in them.
public enum Page {
    /// Bytes in a page.
    public static let size = Int(sysconf(Int32(_SC_PAGESIZE)))

    /// How many pages a buffer touches: one for a single byte, two for two bytes on either side of a boundary, none for
    /// an empty one. (I7.1)
    public static func count(_ buffer: UnsafeRawBufferPointer) -> Int {
        guard let base = buffer.baseAddress, buffer.count > 0 else { return 0 }
        let address = Int(bitPattern: base)
        return (address + buffer.count - 1) / size - address / size + 1
    }

    /// The pages that a buffer needs when it begins where a page begins.
    public static func count(bytes: Int) -> Int { (max(0, bytes) + size - 1) / size }
}
