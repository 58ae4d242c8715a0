import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Synchronization
import Testing

/// What does not hold, in words. Scenarios block, so they run on threads of their own, where an expectation of the
/// testing library would not know its test.
final class Complaints: @unchecked Sendable {
    private let monitor = Monitor()
    private var said: [String] = []  // under the monitor

    var all: [String] { monitor.locked { said } }

    func add(_ words: String) { monitor.locked { said.append(words) } }

    /// Complains unless it is so.
    func expect(
        _ holds: Bool, _ words: @autoclosure () -> String, line: Int = #line
    ) {
        if !holds { add("line \(line): \(words())") }
    }

    /// Complains unless both are equal.
    func equal<Value: Equatable>(
        _ found: Value, _ wanted: Value, _ words: @autoclosure () -> String = "", line: Int = #line
    ) {
        if found != wanted { add("line \(line): \(words()) is \(found), not \(wanted)") }
    }

    /// Complains unless the body throws an error with this number.
    func refused(
        _ code: Int32, _ words: @autoclosure () -> String, line: Int = #line,
        _ body: () throws(SystemError) -> Void
    ) {
        do throws(SystemError) {
            try body()
            add("line \(line): \(words()) was accepted")
        } catch {
            equal(error.code, code, "the error of: \(words())", line: line)
        }
    }
}

/// Runs a scenario on a thread of its own, for a bounded time, and expects that it has nothing to complain about.
func verify(_ body: @escaping @Sendable (Complaints) throws -> Void) throws {
    let complaints = Complaints()
    try inTime { try body(complaints) }
    #expect(complaints.all.isEmpty)
}

/// An event that remembers what it was told.
final class Flag: Signal, @unchecked Sendable {
    private let value = Atomic<Bool>(false)
    private let resets = Counter()

    var isSet: Bool { value.load(ordering: .acquiring) }
    var timesReset: Int { resets.value }
    override func reset() {
        resets.add()
        value.store(false, ordering: .releasing)
    }
    override func set() { value.store(true, ordering: .releasing) }
}

extension CompletionPort {
    /// Whether no packet is there, nor comes within a few milliseconds.
    var hasNothingMore: Bool {
        if case .timedOut = dequeue(timeout: .milliseconds(5)) { return true }
        return false
    }
}
