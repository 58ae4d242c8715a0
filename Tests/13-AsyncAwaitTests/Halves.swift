import AsyncAwait
import AsyncAwaitPitfalls
import Glibc
import Kernel
import Reordering
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

/// The error that a call has thrown; nil when it has thrown none.
func code(_ result: Result<some Any, SystemError>?) -> Int32? {
    guard case .failure(let error)? = result else { return nil }
    return error.code
}

/// What an awaited call has come to.
func outcome<Value: Sendable>(
    _ body: @escaping @Sendable () async throws(SystemError) -> Value
) async -> Result<Value, SystemError> {
    await Result { () async throws(SystemError) in try await body() }
}
