import Kernel
import Synchronization

/// A value that can only be reached with its lock held. (I4.6)
///
/// What is not reachable otherwise cannot be forgotten to be locked, and a check and what follows from it are in one
/// `locked` by nature. The lock cannot be copied along with the value: this is a class, and `Lock` itself cannot be
/// copied at all.
public final class Guarded<Value>: @unchecked Sendable {
    private let lock = Lock()
    private var value: Value
    /// By this two of them are locked in the same order everywhere.
    private let number = Guards.count.add(1, ordering: .relaxed).newValue

    /// Puts a value under a lock.
    public init(_ value: Value) { self.value = value }

    /// Holds the lock while `body` reads and changes the value.
    public func locked<Result, Failure: Error>(
        _ body: (inout Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }

    /// Holds two locks while `body` reads and changes both values. They are taken in the order of their age, whatever
    /// the order of the arguments: so two threads never wait for each other.
    public static func both<Result, Failure: Error>(
        _ one: Guarded, _ other: Guarded, _ body: (inout Value, inout Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(one !== other, "two locks, not the same twice")
        let (first, second) = one.number < other.number ? (one, other) : (other, one)
        first.lock.lock()
        second.lock.lock()
        defer {
            second.lock.unlock()
            first.lock.unlock()
        }
        return try body(&one.value, &other.value)
    }
}

private enum Guards {
    static let count = Atomic<Int>(0)
}
