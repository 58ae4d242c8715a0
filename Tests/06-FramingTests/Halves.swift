import Contexts
import Glibc
import Kernel
import Stage
import Testing

/// The broken half shows the bad outcome.
func happens(_ pitfall: Pitfall, _ driver: DriverKind) async throws {
    let seen = try await onAThread { try pitfall.broken(driver) }
    #expect(seen.happened, "\(seen.lines)")
}

/// The fixed half does not.
func holds(_ pitfall: Pitfall, _ driver: DriverKind) async throws {
    let seen = try await onAThread { try pitfall.fixed(driver) }
    #expect(!seen.happened, "\(seen.lines)")
}

/// What a body on a thread of its own expects. Issues are recorded when it has ended, by the test that it belongs to: a
/// thread of one's own belongs to none.
final class Facts: Sendable {
    private let wrong = Guarded<[(words: String, place: SourceLocation)]>([])

    func expect(_ isSo: Bool, _ words: String = "", at place: SourceLocation = #_sourceLocation) {
        if !isSo { wrong.locked { $0.append((words, place)) } }
    }

    func record() {
        for (words, place) in wrong.locked({ $0 }) { Issue.record("not so: \(words)", sourceLocation: place) }
    }
}

/// The same for a body that expects several things.
func onAThread(_ body: @escaping @Sendable (Facts) throws -> Void) async throws {
    let facts = Facts()
    defer { facts.record() }
    try await onAThread { () throws -> Void in try body(facts) }
}
