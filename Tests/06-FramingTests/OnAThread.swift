import Contexts
import Glibc
import Kernel
import Stage
import Testing

/// The body of a test that blocks, on a thread of its own and for a bounded time: the test pool has two threads only.
func onAThread<Result: Sendable>(
    _ body: @escaping @Sendable () throws -> Result
) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        _ = startThread("test") {
            let outcome = boundedResult(.seconds(60)) { Swift.Result { try body() } }
            continuation.resume(with: outcome ?? .failure(Hangs()))
        }
    }
}

/// The body did not end in time.
struct Hangs: Error {}

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

/// Whether a sanitizer watches: it keeps freed memory back, so that what the system counts says nothing.
let isSanitized = dlsym(nil, "__asan_init") != nil || dlsym(nil, "__tsan_init") != nil

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
