import Glibc

/// Runs the body of a test that blocks, on a thread of its own and for a minute at most, three under a sanitizer: the test
/// pool has few threads, and a limit of time does not stop one that is blocked.
///
/// - Throws: what the body throws, or `Hangs`. Then its thread is left behind as it is.
public func onAThread<Result: Sendable>(
    _ body: @escaping @Sendable () throws -> Result
) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        _ = startThread("test") {
            let outcome = boundedResult(.seconds(isSanitized ? 180 : 60)) { Swift.Result { try body() } }
            continuation.resume(with: outcome ?? .failure(Hangs()))
        }
    }
}

/// The body of a test did not end in time.
public struct Hangs: Error {}

/// Whether a sanitizer is in this program: it keeps freed memory back, and makes everything ten times slower.
public let isSanitized = ["__asan_init", "__tsan_init"].contains { (name: String) in dlsym(nil, name) != nil }
