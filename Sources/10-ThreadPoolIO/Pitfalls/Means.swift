import Glibc
import Kernel
import Stage
import ThreadPoolIO

extension ThreadPool {
    /// A pool on one driver.
    static func on(
        _ driver: DriverKind, minimum: Int = 1, maximum: Int = 16, idleTime: Duration = .seconds(10)
    ) throws(SystemError) -> ThreadPool {
        var options = Options()
        (options.minimum, options.maximum, options.idleTime) = (minimum, maximum, idleTime)
        options.port.driver = driver
        return try ThreadPool(options)
    }
}

/// An operation with a buffer of its own.
final class Request: PoolOperation, @unchecked Sendable {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    deinit { memory.deallocate() }
}

/// Scenarios that end in a crash.
public let ownProcess = OwnProcess(
    "10-thread-pool-io",
    [
        CloseWithCallbacksRunning.slug: { try CloseWithCallbacksRunning.crash($0) },
        MessageLongerThanBuffer.slug: { try MessageLongerThanBuffer.crash($0) },
    ])
