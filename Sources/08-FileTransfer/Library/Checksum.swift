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

    private var a = p1 &+ p2
    private var b = p2
    private var c: UInt64 = 0
    private var d = 0 &- p1
    private var total: UInt64 = 0
    /// The bytes at the end that do not make a block yet.
    private var rest: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    private var restCount = 0

    /// The sum of no bytes.
    public init() {}

    /// Takes up the next bytes.
    public mutating func add(_ bytes: UnsafeRawBufferPointer) {
        total &+= UInt64(bytes.count)
        var left = bytes
        if restCount > 0 {
            keep(&left)
            guard restCount == Checksum.block else { return }
            let block = rest
            withUnsafeBytes(of: block) { addBlocks($0) }
            restCount = 0
        }
        let whole = left.count & ~(Checksum.block - 1)
        addBlocks(UnsafeRawBufferPointer(rebasing: left[..<whole]))
        left = UnsafeRawBufferPointer(rebasing: left[whole...])
        keep(&left)
    }

    /// The sum of everything so far.
    public var value: UInt64 {
        var sum = c &+ Checksum.p5
        if total >= UInt64(Checksum.block) {
            sum = a.turned(1) &+ b.turned(7) &+ c.turned(12) &+ d.turned(18)
            for lane in [a, b, c, d] {
                sum = (sum ^ Checksum.round(0, lane)) &* Checksum.p1 &+ Checksum.p4
            }
        }
        sum &+= total
        withUnsafeBytes(of: rest) { rest in
            var position = 0
            while position + 8 <= restCount {
                let word = UInt64(littleEndian: rest.loadUnaligned(fromByteOffset: position, as: UInt64.self))
                sum = (sum ^ Checksum.round(0, word)).turned(27) &* Checksum.p1 &+ Checksum.p4
                position += 8
            }
            if position + 4 <= restCount {
                let word = UInt32(littleEndian: rest.loadUnaligned(fromByteOffset: position, as: UInt32.self))
                sum = (sum ^ (UInt64(word) &* Checksum.p1)).turned(23) &* Checksum.p2 &+ Checksum.p3
                position += 4
            }
            for byte in rest[position..<restCount] {
                sum = (sum ^ (UInt64(byte) &* Checksum.p5)).turned(11) &* Checksum.p1
            }
        }
        sum = (sum ^ (sum >> 33)) &* Checksum.p2
        sum = (sum ^ (sum >> 29)) &* Checksum.p3
        return sum ^ (sum >> 32)
    }

    /// Puts as many bytes aside as are missing for a block.
    private mutating func keep(_ bytes: inout UnsafeRawBufferPointer) {
        let count = min(bytes.count, Checksum.block - restCount)
        guard count > 0 else { return }
        let start = restCount
        withUnsafeMutableBytes(of: &rest) { rest in
            UnsafeMutableRawBufferPointer(rebasing: rest[start..<start + count]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        }
        restCount += count
        bytes = UnsafeRawBufferPointer(rebasing: bytes[count...])
    }

    /// Whole blocks. The four sums live in registers meanwhile.
    private mutating func addBlocks(_ bytes: UnsafeRawBufferPointer) {
        guard let start = bytes.baseAddress else { return }
        var (a, b, c, d) = (a, b, c, d)
        var position = 0
        while position < bytes.count {
            // In bounds: the count is a multiple of the block.
            let word = { (offset: Int) in
                UInt64(littleEndian: (start + position + offset).loadUnaligned(as: UInt64.self))
            }
            a = Checksum.round(a, word(0))
            b = Checksum.round(b, word(8))
            c = Checksum.round(c, word(16))
            d = Checksum.round(d, word(24))
            position &+= Checksum.block
        }
        (self.a, self.b, self.c, self.d) = (a, b, c, d)
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
