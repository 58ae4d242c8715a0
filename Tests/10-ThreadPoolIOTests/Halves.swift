import Kernel
import Stage
import Testing
import ThreadPoolIO

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

/// A pool on one driver.
func pool(
    _ driver: DriverKind = .epoll, minimum: Int = 1, maximum: Int = 16, idleTime: Duration = .seconds(10)
) throws(SystemError) -> ThreadPool {
    var options = ThreadPool.Options()
    (options.minimum, options.maximum, options.idleTime) = (minimum, maximum, idleTime)
    options.port.driver = driver
    return try ThreadPool(options)
}

/// An operation with a buffer of its own.
final class Request: PoolOperation, @unchecked Sendable {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    deinit { memory.deallocate() }
}
