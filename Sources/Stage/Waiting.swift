import Glibc
import Kernel
import Synchronization

/// Asks again and again, a millisecond apart, until the answer is yes or the time is over; says which.
/// For what cannot be waited for, such as the number of open descriptors.
public func eventually(
    within patience: Duration = Gate.patience, _ condition: () throws -> Bool
) rethrows -> Bool {
    let deadline = Deadline.after(patience)
    while true {
        if try condition() { return true }
        if deadline.hasPassed { return false }
        usleep(1_000)
    }
}

/// Runs `body` on a thread of its own and says whether it ended in time. If not, the thread is left behind as it is.
public func boundedWait(_ patience: Duration, _ body: @escaping @Sendable () -> Void) -> Bool {
    boundedResult(patience, body) != nil
}

/// Runs `body` on a thread of its own and gives its result, or `nil` if it did not end in time. The thread is then
/// left behind as it is.
public func boundedResult<Result: Sendable>(
    _ patience: Duration, _ body: @escaping @Sendable () -> Result
) -> Result? {
    let box = Box<Result>()
    let thread = startThread("bounded wait") { box.put(body()) }
    guard box.gate.pass(within: patience) else { return nil }
    thread.join()
    return box.value
}

/// Starts a thread, or ends the program if the system has none left: scenarios and tests cannot go on without.
public func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) -> Thread {
    do {
        return try Thread(name, body)
    } catch {
        fatalError("\(error)")
    }
}

/// Runs `body` on `count` threads at once, each with its number from 0 on, and waits for all of them.
public func inThreads(_ count: Int, named name: String = "thread", _ body: @escaping @Sendable (Int) -> Void)
{
    let threads = (0..<count).map { index in startThread("\(name) \(index)") { body(index) } }
    for thread in threads { thread.join() }
}

private final class Box<Value: Sendable>: @unchecked Sendable {
    let gate = Gate()
    private(set) var value: Value?  // written before the gate opens, read after

    func put(_ value: Value) {
        self.value = value
        gate.open()
    }
}

/// A number that many threads count with.
public final class Counter: Sendable {
    private let number = Atomic<Int>(0)
    private let highest = Atomic<Int>(0)

    /// A counter at 0.
    public init() {}

    /// The present number.
    public var value: Int { number.load(ordering: .acquiring) }

    /// The highest number that there ever was.
    public var peak: Int { highest.load(ordering: .acquiring) }

    /// Adds to the number, and returns the new one.
    @discardableResult
    public func add(_ amount: Int = 1) -> Int {
        let result = number.add(amount, ordering: .acquiringAndReleasing).newValue
        highest.max(result, ordering: .acquiringAndReleasing)
        return result
    }
}
