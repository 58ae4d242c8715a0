import CompletionPorts
import Kernel

/// A callback that can be submitted, any number of times.
///
/// Win32 counterpart: `CreateThreadpoolWork`.
public final class PoolWork: PoolObject, @unchecked Sendable {
    private let callback: @Sendable (CallbackInstance) -> Void

    /// A callback that is not submitted yet. Several of its calls may run at the same time.
    public init(
        _ pool: ThreadPool = .shared, group: PoolGroup? = nil,
        _ callback: @escaping @Sendable (CallbackInstance) -> Void
    ) {
        self.callback = callback
        super.init(pool, group)
    }

    /// Has the callback called once more. The callback may have run before this returns.
    ///
    /// - Throws: EBADF when it or the pool is closed, EAGAIN when the pool has no thread and the system gives none.
    ///
    /// Win32 counterpart: `SubmitThreadpoolWork`.
    public func submit() throws(SystemError) {
        let call = try pool.withThread("submit to a closed thread pool") { () throws(SystemError) in
            try requireOpen("submit a callback")
            return announce()
        }
        pool.post(call)
    }

    override func called(_ packet: Packet, _ instance: CallbackInstance) { callback(instance) }
}
