/// The number of a chunk in its stream: 32 bits that begin again at 0 after the last.
///
/// There is no `<` here, on purpose: on a circle "smaller" does not mean "earlier", and an order that sorts well in a
/// test would fail after 4,294,967,296 chunks. Which of two is earlier is a matter of their distance, and has an
/// answer as long as the two are less than half the circle apart. (I5.4)
public struct SequenceNumber: Hashable, Sendable, CustomStringConvertible {
    /// The bits.
    public let value: UInt32

    /// A number.
    public init(_ value: UInt32) { self.value = value }

    /// The one that follows.
    public var next: SequenceNumber { SequenceNumber(value &+ 1) }

    /// How many steps lead from here to `other`; negative when it lies behind.
    public func distance(to other: SequenceNumber) -> Int {
        Int(Int32(bitPattern: other.value &- value))
    }

    /// Whether this one was given before `other`.
    public func precedes(_ other: SequenceNumber) -> Bool { distance(to: other) > 0 }

    /// The number itself.
    public var description: String { "\(value)" }
}
