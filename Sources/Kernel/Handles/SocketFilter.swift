import CKernel
import Glibc

/// A listener's filter: which clients' requests for a connection the system drops, before any program hears of them. Such a client
/// gets no answer at all, as if there were no machine, and costs no accept.
///
/// It is a program in the kernel's small packet language, compiled from a list of addresses, which the kernel runs for every
/// packet that reaches the socket. **Accepted sockets inherit it**, and it would run for every packet of every connection: so it
/// lets go, with its fourth instruction, what is not a request (SYN). For the same reason it touches no connection that stands
/// or is being made.
///
/// Not every process may do this: newer systems ask for CAP_NET_ADMIN, which a container does not have. What it is for has to
/// be done at the accept as well.
///
/// Win32 counterpart: none for a socket; `SO_CONDITIONAL_ACCEPT` answers with a reset, a silent ban is the firewall's
/// (`FWPM_LAYER_ALE_AUTH_RECV_ACCEPT`).
public struct SocketFilter: Sendable, Equatable {
    /// An instruction, as the kernel takes it.
    package struct Instruction: Sendable, Equatable {
        /// What it does: the kernel's number.
        package var code: Int32
        /// How many instructions are passed over if a comparison holds.
        package var ifTrue: UInt8 = 0
        /// How many if it does not.
        package var ifFalse: UInt8 = 0
        /// What it compares with, loads from, or skips.
        package var value: UInt32 = 0
    }

    package let program: [Instruction]

    /// The most instructions that the kernel takes.
    public static let longest = 4096

    /// How many instructions it has: two for each IPv4 address, three for an IPv4 range, up to nine for one of IPv6.
    public var count: Int { program.count }

    /// A filter that drops the requests of clients in these ranges.
    ///
    /// - Returns: nil when it would be too long: with some 2,000 addresses. Ranges that lie beside each other are best put
    ///   together before.
    public init?(dropping ranges: [AddressRange]) {
        var v4: [Instruction] = [.load(word: SocketFilter.network + 12)]
        for range in ranges where !range.isIPv6 { v4 += SocketFilter.drop(v4: range) }
        v4.append(.keep)
        var v6: [Instruction] = []
        for range in ranges where range.isIPv6 { v6 += SocketFilter.drop(v6: range) }
        v6.append(.keep)
        program =
            [
                // The flags of TCP: its header is where offsets begin.
                .load(byte: 13), .and(SocketFilter.syn | SocketFilter.ack),
                .if(.equal, SocketFilter.syn, skip: 1), .keep,
                // A listener for both families sees both. The version is the upper half of the first byte.
                .load(byte: SocketFilter.network), .and(0xf0), .if(.equal, 0x60, orSkip: 1), .skip(v4.count),
            ] + v4 + v6
        if program.count > SocketFilter.longest { return nil }
    }

    private static func drop(v4 range: AddressRange) -> [Instruction] {
        let first = UInt32(truncatingIfNeeded: range.first)
        if range.isOneAddress { return [.if(.equal, first, orSkip: 1), .drop] }
        let last = UInt32(truncatingIfNeeded: range.last)
        return [.if(.atLeast, first, orSkip: 2), .if(.above, last, skip: 1), .drop]
    }

    /// An address of IPv6 is four words, and each is loaded when those before it were equal.
    private static func drop(v6 range: AddressRange) -> [Instruction] {
        var steps: [Instruction] = []
        for word in 0..<(range.prefix + 31) / 32 {
            let bits = min(32, range.prefix - 32 * word)
            steps.append(.load(word: network + 8 + 4 * UInt32(word)))
            if bits < 32 { steps.append(.and(~(.max >> UInt32(bits)))) }
            steps.append(.if(.equal, UInt32(truncatingIfNeeded: range.first >> (96 - 32 * word))))
        }
        steps.append(.drop)
        // From each comparison that fails, on to the next range.
        for place in steps.indices where steps[place].code == Instruction.comparison(.equal) {
            steps[place].ifFalse = UInt8(steps.count - 1 - place)
        }
        return steps
    }

    private static let (syn, ack): (UInt32, UInt32) = (0x02, 0x10)
    /// Offsets from here on are in the header of IP.
    private static let network = UInt32(bitPattern: SKF_NET_OFF)
}

extension SocketFilter.Instruction {
    enum Comparison { case equal, atLeast, above }

    static func comparison(_ kind: Comparison) -> Int32 {
        BPF_JMP | BPF_K
            | {
                switch kind {
                case .equal: BPF_JEQ
                case .atLeast: BPF_JGE
                case .above: BPF_JGT
                }
            }()
    }

    static let keep = Self(code: BPF_RET | BPF_K, value: .max)
    static let drop = Self(code: BPF_RET | BPF_K, value: 0)
    static func load(byte offset: UInt32) -> Self { Self(code: BPF_LD | BPF_B | BPF_ABS, value: offset) }
    static func load(word offset: UInt32) -> Self { Self(code: BPF_LD | BPF_W | BPF_ABS, value: offset) }
    static func and(_ mask: UInt32) -> Self { Self(code: BPF_ALU | BPF_AND | BPF_K, value: mask) }
    static func skip(_ count: Int) -> Self { Self(code: BPF_JMP | BPF_JA, value: UInt32(count)) }
    static func `if`(
        _ kind: Comparison, _ value: UInt32, skip: UInt8 = 0, orSkip otherwise: UInt8 = 0
    ) -> Self {
        Self(code: comparison(kind), ifTrue: skip, ifFalse: otherwise, value: value)
    }
}

extension Socket {
    /// From now on the system drops the requests that the filter is against. It takes the place of an earlier one at once.
    ///
    /// - Throws: EPERM where this process may not; ENOMEM when the system allows no filter of that length
    ///   (`net.core.optmem_max`). Then the earlier filter stays.
    public func attach(_ filter: SocketFilter) throws(SystemError) {
        var program = filter.program.map {
            sock_filter(code: UInt16($0.code), jt: $0.ifTrue, jf: $0.ifFalse, k: $0.value)
        }
        let count = UInt16(program.count)
        let code = program.withUnsafeMutableBufferPointer { program -> Int32 in
            var whole = sock_fprog(len: count, filter: program.baseAddress)
            let size = socklen_t(MemoryLayout<sock_fprog>.size)
            return lendingDescriptor {
                setsockopt($0, SOL_SOCKET, SO_ATTACH_FILTER, &whole, size) == 0 ? 0 : errno
            }
        }
        guard code == 0 else {
            let right = code == EPERM ? ", which needs CAP_NET_ADMIN" : ""
            throw SystemError(code, attempted: "attach a filter of \(count) instructions\(right)")
        }
    }

    /// Takes the filter away. One that has none is no error.
    public func detachFilter() throws(SystemError) {
        do throws(SystemError) {
            try set(SOL_SOCKET, SO_DETACH_FILTER, 0)
        } catch {
            if error.code != ENOENT { throw error }
        }
    }

    /// How many packets the system has dropped here: a listener's filter was against them, or its backlog was full. Nil when
    /// closed.
    public var droppedPackets: Int? {
        // `SO_MEMINFO` gives nine numbers of 32 bits; the last is this one.
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 9) { words in
            var length = socklen_t(9 * MemoryLayout<UInt32>.size)
            let result = lendingDescriptor {
                getsockopt($0, SOL_SOCKET, SO_MEMINFO, words.baseAddress!, &length)
            }
            return result == 0 && length == 9 * MemoryLayout<UInt32>.size ? Int(words[8]) : nil
        }
    }
}

extension SocketFilter {
    /// Whether this process may attach filters. It tries.
    public static var isPermitted: Bool {
        guard let socket = try? Socket.unbound(), let filter = SocketFilter(dropping: []) else {
            return false
        }
        defer { socket.close() }
        return (try? socket.attach(filter)) != nil
    }
}
