import CKernel
import Glibc

/// An IPv4 or IPv6 address with a port.
///
/// Win32 counterpart: `SOCKADDR_STORAGE`. Its size is one constant, `Address.capacity`: the areas for addresses
/// are the same wherever an address is stored.
public struct Address: Sendable, Hashable, CustomStringConvertible {
    private var family: Int32
    private var bytes: (UInt64, UInt64)
    /// The port, in the processor's byte order; 0 asks for any free one.
    public var port: UInt16

    /// The largest number of bytes that an address takes in memory.
    public static let capacity = MemoryLayout<sockaddr_in6>.size

    /// An address in digits (`127.0.0.1`, `::1`); nil when it is none. Names are not looked up.
    public init?(_ host: String, port: UInt16) {
        self.port = port
        bytes = (0, 0)
        family = host.contains(":") ? AF_INET6 : AF_INET
        let family = self.family
        guard withUnsafeMutableBytes(of: &bytes, { inet_pton(family, host, $0.baseAddress) }) == 1 else {
            return nil
        }
    }

    /// This machine by IPv4, 127.0.0.1.
    public static func loopback(port: UInt16 = 0) -> Address { Address("127.0.0.1", port: port)! }

    /// This machine by IPv6, ::1.
    public static func loopback6(port: UInt16 = 0) -> Address { Address("::1", port: port)! }

    /// No address of this machine in particular, 0.0.0.0: a listener there takes clients on all of them, and a connection
    /// from there gets the one that leads to the other side. Win32 counterpart: `INADDR_ANY`.
    public static func any(port: UInt16 = 0) -> Address { Address("0.0.0.0", port: port)! }

    /// The same by IPv6, ::. Win32 counterpart: `in6addr_any`.
    public static func any6(port: UInt16 = 0) -> Address { Address("::", port: port)! }

    /// Whether it names no address in particular. A connection from there gets one.
    public var isAny: Bool { bytes == (0, 0) }

    /// The address family, as `socket` takes it.
    public var isIPv6: Bool { family == AF_INET6 }
    var domain: Int32 { family }

    /// The address without its port.
    public var host: String {
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        var copy = bytes
        _ = withUnsafeBytes(of: &copy) { inet_ntop(family, $0.baseAddress, &text, socklen_t(text.count)) }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The address as a number, the byte that is written first on top: IPv4's 32 bits, or IPv6's 128.
    var number: UInt128 {
        if !isIPv6 { return UInt128(UInt32(bigEndian: UInt32(truncatingIfNeeded: bytes.0))) }
        return UInt128(UInt64(bigEndian: bytes.0)) << 64 | UInt128(UInt64(bigEndian: bytes.1))
    }

    /// The address that a number stands for, without a port.
    init(number: UInt128, isIPv6: Bool) {
        family = isIPv6 ? AF_INET6 : AF_INET
        port = 0
        let (upper, lower) = (UInt64(truncatingIfNeeded: number >> 64), UInt64(truncatingIfNeeded: number))
        bytes =
            isIPv6
            ? (upper.bigEndian, lower.bigEndian)
            : (UInt64(UInt32(truncatingIfNeeded: lower).bigEndian), 0)
    }

    /// The same, but for an IPv4 address in IPv6's clothes (`::ffff:10.0.0.1`), as a listener for both families reports
    /// it: that is the IPv4 address itself. For comparisons, limits and text.
    public var unmapped: Address {
        guard isIPv6, number >> 32 == 0xffff else { return self }
        var plain = Address(number: number, isIPv6: false)
        plain.port = port
        return plain
    }

    /// As it is written beside a port: `127.0.0.1:80`, `[::1]:80`.
    public var description: String { isIPv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// Two addresses are equal when family, address and port are.
    public static func == (a: Address, b: Address) -> Bool {
        a.family == b.family && a.port == b.port && a.bytes == b.bytes
    }

    /// Hashes what equality compares.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(port)
        hasher.combine(bytes.0)
        hasher.combine(bytes.1)
    }

    /// Lends the system's form of the address.
    func withSystem<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        var storage = sockaddr_storage()
        return withUnsafeMutableBytes(of: &storage) { raw in
            // The storage is larger than either form and aligned for both; it lives until `body` returns.
            let length: Int
            if isIPv6 {
                let v6 = raw.baseAddress!.assumingMemoryBound(to: sockaddr_in6.self)
                v6.pointee.sin6_family = sa_family_t(AF_INET6)
                v6.pointee.sin6_port = port.bigEndian
                _ = withUnsafeBytes(of: bytes) { memcpy(&v6.pointee.sin6_addr, $0.baseAddress!, 16) }
                length = MemoryLayout<sockaddr_in6>.size
            } else {
                let v4 = raw.baseAddress!.assumingMemoryBound(to: sockaddr_in.self)
                v4.pointee.sin_family = sa_family_t(AF_INET)
                v4.pointee.sin_port = port.bigEndian
                _ = withUnsafeBytes(of: bytes) { memcpy(&v4.pointee.sin_addr, $0.baseAddress!, 4) }
                length = MemoryLayout<sockaddr_in>.size
            }
            return body(raw.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(length))
        }
    }

    /// Takes an address from the system's form; nil when it is of another family.
    init?(system storage: sockaddr_storage) {
        var storage = storage
        family = Int32(storage.ss_family)
        bytes = (0, 0)
        port = 0
        switch family {
        case AF_INET:
            withUnsafeBytes(of: &storage) { raw in
                let v4 = raw.loadUnaligned(as: sockaddr_in.self)
                port = UInt16(bigEndian: v4.sin_port)
                bytes.0 = UInt64(v4.sin_addr.s_addr)
            }
        case AF_INET6:
            withUnsafeBytes(of: &storage) { raw in
                let v6 = raw.loadUnaligned(as: sockaddr_in6.self)
                port = UInt16(bigEndian: v6.sin6_port)
                withUnsafeBytes(of: v6.sin6_addr) { address in
                    bytes = (
                        address.loadUnaligned(as: UInt64.self),
                        address.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                    )
                }
            }
        default: return nil
        }
    }

    /// Asks the system for an address of a descriptor: `getsockname` or `getpeername`.
    static func ask(
        _ attempted: String, _ descriptor: Int32,
        _ call: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
    ) throws(SystemError) -> Address {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { call(descriptor, $0, &length) }
        }
        guard result == 0 else { throw .last(attempted) }
        guard let address = Address(system: storage) else {
            throw SystemError(EAFNOSUPPORT, attempted: attempted)
        }
        return address
    }
}
