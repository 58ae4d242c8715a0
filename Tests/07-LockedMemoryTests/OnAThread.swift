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
