/// A bounded row of bytes: appended at the back, split off at the front.
///
/// It holds up to `limit` bytes and never has more memory than that. It grows with the bytes that are there, not with
/// the number that was announced. (I6.3) One thread at a time; it has one owner, and the compiler sees to
/// that.
///
/// Counterpart in the article: `CIOCPBuffer` with `AddData`, `AddAndFlush` and `SplitBuffer`.
public struct SplitBuffer: ~Copyable {
    /// The most bytes that it holds.
    public let limit: Int
    // This value's alone; freed when it goes or grows.
    private var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    private var start = 0
    private var end = 0
    /// The most memory that it has ever had, in bytes.
    public private(set) var peakCapacity = 0

    /// Memory up to this size is kept when the buffer becomes empty; more than that is given back.
    public static let keptCapacity = 4096
    private static let smallest = 64

    /// An empty buffer, without any memory yet.
    public init(limit: Int) {
        self.limit = max(0, limit)
    }

    deinit { memory.deallocate() }

    /// Bytes that are in it.
    public var count: Int { end - start }

    /// Whether there are none.
    public var isEmpty: Bool { start == end }

    /// Memory that it has at present, in bytes.
    public var capacity: Int { memory.count }

    // MARK: Append

    /// Puts bytes at the back: a copy of them.
    ///
    /// - Throws: `bufferFull` when they would be more than the limit. Then nothing was appended.
    public mutating func append(_ bytes: RawSpan) throws(FrameError) {
        let count = bytes.byteCount
        guard count > 0 else { return }
        try reserve(count)
        bytes.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: memory[end...]).copyMemory(from: $0) }
        end += count
    }

    /// Puts a number at the back.
    ///
    /// - Throws: `bufferFull`.
    public mutating func append<Number: FixedWidthInteger & BitwiseCopyable>(
        _ number: Number, _ order: ByteOrder
    ) throws(FrameError) {
        try reserve(MemoryLayout<Number>.size)
        memory.storeBytes(
            of: order == .bigEndian ? number.bigEndian : number.littleEndian, toByteOffset: end,
            as: Number.self)
        end += MemoryLayout<Number>.size
    }

    /// Puts a text at the back, without any terminator.
    ///
    /// - Throws: `bufferFull`.
    public mutating func append(_ text: String) throws(FrameError) {
        let bytes = Array(text.utf8)
        try append(bytes.span.bytes)
    }

    /// Makes room for more bytes behind the last one.
    private mutating func reserve(_ more: Int) throws(FrameError) {
        if more <= memory.count - end { return }
        let present = count
        guard more <= limit - present else { throw FrameError(.bufferFull(limit: limit), at: present) }
        let needed = present + more
        if needed <= memory.count {
            // There is room, but in front.
            memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[start..<end]))
        } else {
            // Twice as much each time, so that all copies together cost no more than the bytes; never above the limit.
            let capacity = min(limit, max(needed, 2 * memory.count, SplitBuffer.smallest))
            let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 16)
            larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[start..<end]))
            memory.deallocate()
            memory = larger
            peakCapacity = max(peakCapacity, capacity)
        }
        (start, end) = (0, present)
    }

    // MARK: Split

    /// Lends the bytes. The span cannot be kept beyond the call: the compiler refuses.
    public borrowing func withBytes<Result, Failure: Error>(
        _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        // Alive and unchanged while `self` is borrowed, which is as long as `body` runs.
        try body(UnsafeRawBufferPointer(rebasing: memory[start..<end]).bytes)
    }

    /// Takes bytes off the front.
    ///
    /// - Throws: `outOfBounds` when there are not so many. Then nothing was taken.
    public mutating func removeFirst(_ count: Int) throws(FrameError) {
        guard (0...self.count).contains(count) else {
            throw FrameError(.outOfBounds(wanted: count, available: self.count), at: 0)
        }
        start += count
        if isEmpty { removeAll() }
    }

    /// Takes bytes off the front as a buffer of their own, with a limit of its own.
    ///
    /// - Throws: `outOfBounds` when there are not so many. Then nothing was taken.
    public mutating func split(first count: Int) throws(FrameError) -> SplitBuffer {
        guard (0...self.count).contains(count) else {
            throw FrameError(.outOfBounds(wanted: count, available: self.count), at: 0)
        }
        var front = SplitBuffer(limit: count)
        try withBytes { bytes throws(FrameError) in try front.append(bytes.extracting(first: count)) }
        try removeFirst(count)
        return front
    }

    /// Empties it. Memory beyond ``keptCapacity`` goes back.
    public mutating func removeAll() {
        (start, end) = (0, 0)
        guard memory.count > SplitBuffer.keptCapacity else { return }
        memory.deallocate()
        memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    }
}
