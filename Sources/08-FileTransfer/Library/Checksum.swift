/// A checksum of 64 bits over any number of bytes, taken up piece by piece in whatever lengths they come.
///
/// It finds accidents: a byte that was changed, lost, added or swapped. It is no protection against an attacker that
/// *wants* two files to look the same. The recipe is XXH64: four sums side by side, each fed 8 bytes of every 32,
/// so that the processor has four multiplications under way at once. That is why it needs no special instruction
/// to keep up with a file.
public struct Checksum: Sendable {
    private static let p1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let p2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let p3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let p4: UInt64 = 0x85EB_CA77_C2B2_AE63
    private static let p5: UInt64 = 0x27D4_EB2F_1656_67C5
    private static let block = 32

    private var lanes = (p1 &+ p2, p2, UInt64(0), 0 &- p1)
    private var total: UInt64 = 0
    /// The bytes at the end that do not make a block yet.
    private var rest = InlineArray<32, UInt8>(repeating: 0)
    private var restCount = 0

    /// The sum of no bytes.
    public init() {}

    /// Takes up the next bytes.
    public mutating func add(_ bytes: UnsafeRawBufferPointer) {
        total &+= UInt64(bytes.count)
        // So many complete the block that was begun, and here the last whole one ends.
        let begun = restCount == 0 ? 0 : min(Checksum.block - restCount, bytes.count)
        let end = bytes.count - (bytes.count - begun) % Checksum.block
        keep(bytes[..<begun])
        if restCount == Checksum.block {
            rest.span.bytes.withUnsafeBytes { Checksum.addBlocks($0, to: &lanes) }
            restCount = 0
        }
        Checksum.addBlocks(UnsafeRawBufferPointer(rebasing: bytes[begun..<end]), to: &lanes)
        keep(bytes[end...])
    }

    /// Puts bytes aside, at most what is missing of a block.
    private mutating func keep(_ bytes: Slice<UnsafeRawBufferPointer>) {
        for byte in bytes {
            rest[restCount] = byte
            restCount += 1
        }
    }

    /// The sum of everything so far.
    public var value: UInt64 {
        let (a, b, c, d) = lanes
        var sum = c &+ Checksum.p5
        if total >= UInt64(Checksum.block) {
            sum = a.turned(1) &+ b.turned(7) &+ c.turned(12) &+ d.turned(18)
            for lane in [a, b, c, d] {
                sum = (sum ^ Checksum.round(0, lane)) &* Checksum.p1 &+ Checksum.p4
            }
        }
        sum &+= total
        var left = 0..<restCount
        func next(_ count: Int) -> UInt64 {
            defer { left = left.dropFirst(count) }
            return left.prefix(count).reversed().reduce(0) { $0 << 8 | UInt64(rest[$1]) }
        }
        while left.count >= 8 {
            sum = (sum ^ Checksum.round(0, next(8))).turned(27) &* Checksum.p1 &+ Checksum.p4
        }
        if left.count >= 4 { sum = (sum ^ next(4) &* Checksum.p1).turned(23) &* Checksum.p2 &+ Checksum.p3 }
        while !left.isEmpty { sum = (sum ^ next(1) &* Checksum.p5).turned(11) &* Checksum.p1 }
        sum = (sum ^ (sum >> 33)) &* Checksum.p2
        sum = (sum ^ (sum >> 29)) &* Checksum.p3
        return sum ^ (sum >> 32)
    }

    /// Whole blocks. The four sums live in registers meanwhile.
    private static func addBlocks(
        _ bytes: UnsafeRawBufferPointer, to lanes: inout (UInt64, UInt64, UInt64, UInt64)
    ) {
        guard let start = bytes.baseAddress else { return }
        var (a, b, c, d) = lanes
        var position = 0
        while position < bytes.count {
            // In bounds: the count is a multiple of the block.
            let word = { (offset: Int) in
                UInt64(littleEndian: (start + position + offset).loadUnaligned(as: UInt64.self))
            }
            a = round(a, word(0))
            b = round(b, word(8))
            c = round(c, word(16))
            d = round(d, word(24))
            position &+= block
        }
        lanes = (a, b, c, d)
    }

    @inline(__always)
    private static func round(_ sum: UInt64, _ word: UInt64) -> UInt64 {
        (sum &+ word &* p2).turned(31) &* p1
    }
}

extension UInt64 {
    /// The bits moved up, and those that fall off at the top put in at the bottom.
    @inline(__always)
    fileprivate func turned(_ bits: UInt64) -> UInt64 { self &<< bits | self &>> (64 &- bits) }
}
