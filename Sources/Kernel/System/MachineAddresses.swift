import Glibc

extension Address {
    /// The addresses of this machine, of every interface that is up, with port 0. A machine has several of them: asking for *the*
    /// address, as with a lookup of its own name, gives any one.
    ///
    /// Win32 counterpart: `GetAdaptersAddresses`.
    public static func ofThisMachine() -> [Address] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var found: [Address] = []
        // The list is the system's, and stands until it is freed.
        var next = first
        while let interface = next?.pointee {
            next = interface.ifa_next
            guard let system = interface.ifa_addr, interface.ifa_flags & UInt32(IFF_UP) != 0 else {
                continue
            }
            var storage = sockaddr_storage()
            let family = Int32(system.pointee.sa_family)
            guard family == AF_INET || family == AF_INET6 else { continue }
            memcpy(
                &storage, system,
                family == AF_INET ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size)
            if let address = Address(system: storage), !found.contains(address) { found.append(address) }
        }
        return found
    }
}
