/// The addresses that begin with the same bits: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.
///
/// An IPv4 address in IPv6's clothes (`::ffff:10.0.0.1`) is the IPv4 address, in a range and when a range is asked about it: a
/// client is the same client, whichever listener it came to. No IPv6 range holds an IPv4 address.
public struct AddressRange: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// The first address, as a number.
    let first: UInt128
    /// How many leading bits count: 0 to 32, or to 128 for IPv6.
    public let prefix: Int
    /// Whether these are IPv6 addresses.
    public let isIPv6: Bool

    init(first: UInt128, prefix: Int, isIPv6: Bool) {
        let rest = (isIPv6 ? 128 : 32) - prefix
        self.first = (first >> rest) << rest
        self.prefix = prefix
        self.isIPv6 = isIPv6
    }

    /// The addresses that have this many leading bits in common with it; its port does not matter.
    ///
    /// - Parameter prefix: nil stands for all bits: this address alone. More than there are is the same as all.
    public init(_ address: Address, prefix: Int? = nil) {
        let plain = address.unmapped
        let bits = plain.isIPv6 ? 128 : 32
        // In `::ffff:10.0.0.0/104` the first 96 bits are the clothes. With fewer of them it is no range of IPv4's.
        let isClothed = address.isIPv6 && !plain.isIPv6
        if isClothed, let prefix, prefix < 96 {
            self.init(first: address.number, prefix: max(0, prefix), isIPv6: true)
        } else {
            let wanted = prefix.map { isClothed ? $0 - 96 : $0 } ?? bits
            self.init(first: plain.number, prefix: min(max(0, wanted), bits), isIPv6: plain.isIPv6)
        }
    }

    /// A range as it is written: an address in digits, and behind a stroke how many leading bits count. Without a stroke it is
    /// the address alone. Nil when it is none. Bits behind the prefix may be set; they do not count.
    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard let address = parts.first.flatMap({ Address(String($0), port: 0) }) else { return nil }
        guard parts.count > 1 else {
            self.init(address)
            return
        }
        let isNumber = parts[1].utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        guard parts.count == 2, isNumber, let prefix = Int(parts[1]), prefix <= (address.isIPv6 ? 128 : 32)
        else { return nil }
        self.init(address, prefix: prefix)
    }

    /// The last address, as a number.
    var last: UInt128 {
        first | ~(UInt128.max << ((isIPv6 ? 128 : 32) - prefix))
    }

    /// Whether it is one address.
    public var isOneAddress: Bool { prefix == (isIPv6 ? 128 : 32) }

    /// Whether the address is in it, whatever its port.
    public func contains(_ address: Address) -> Bool { contains(AddressRange(address)) }

    /// Whether all of the other one is in it.
    public func contains(_ other: AddressRange) -> Bool {
        isIPv6 == other.isIPv6 && first <= other.first && other.last <= last
    }

    /// This range and the one beside it, which together make a range: nil for all addresses. The other half.
    public var sibling: AddressRange? {
        guard prefix > 0 else { return nil }
        let bit = UInt128(1) << ((isIPv6 ? 128 : 32) - prefix)
        return AddressRange(first: first ^ bit, prefix: prefix, isIPv6: isIPv6)
    }

    /// The range with fewer leading bits that this one is in.
    ///
    /// - Parameter prefix: at most this one's.
    public func widened(to prefix: Int) -> AddressRange {
        AddressRange(first: first, prefix: min(max(0, prefix), self.prefix), isIPv6: isIPv6)
    }

    /// IPv4 first, then by their first address.
    public static func < (a: AddressRange, b: AddressRange) -> Bool {
        if a.isIPv6 != b.isIPv6 { return b.isIPv6 }
        return (a.first, a.prefix) < (b.first, b.prefix)
    }

    /// As it is written: `10.0.0.0/8`; one address alone without a stroke.
    public var description: String {
        let host = Address(number: first, isIPv6: isIPv6).host
        return isOneAddress ? host : "\(host)/\(prefix)"
    }
}
