import CompletionPorts
import Glibc
import Kernel

/// Bringing a connection to rest, and keeping it from that. From any thread.
extension StreamConnection {
    /// What waits for a connection to be at rest. Called once, with the connection's lock held, so it must be short: with true
    /// when nothing of the connection is under way, with false when that will not be.
    ///
    /// - Returns: What is to be done when the lock is free again, before anything more is handed to the handler.
    package typealias Rest = @Sendable (_ isAtRest: Bool) -> (@Sendable () -> Void)?

    /// Posts nothing more for receiving, and asks for everything that is posted back. When the packets of all operations have
    /// been taken in, the worker that has brought the last one calls `body`, and then reading goes on. Bytes that were quicker
    /// than the cancelling are received as ever, in their order. (I5.8)
    ///
    /// Sends are waited for: only the other side knows how long. `goOn` ends the waiting.
    ///
    /// - Throws: EBADF when the connection is over, ENOTCONN when it does not stand yet, EBUSY when it has to stay, or is
    ///   being brought to rest already. Then `body` is not called.
    package func rest(_ body: @escaping Rest) throws(SystemError) {
        lock.lock()
        let code: Int32? =
            if reason != nil { EBADF } else if !isReading { ENOTCONN } else if stays > 0 || atRest != nil {
                EBUSY
            } else { nil }
        if let code {
            lock.unlock()
            throw SystemError(code, attempted: "bring \(id) to rest")
        }
        atRest = body
        receiver.comeToRest(self, hub.receives)
        leave()
    }

    /// Gives up to wait for rest.
    package func goOn() {
        lock.lock()
        _ = endRest(false)
        replan()
        leave()
    }

    /// The connection stays with its port until `mayGo`: something outside of it, such as a file, has its packets sent there.
    /// Each `stay` needs one `mayGo`.
    public func stay() {
        lock.lock()
        stays += 1
        _ = endRest(false)
        replan()
        leave()
    }

    /// Ends what `stay` began.
    public func mayGo() { lock.locked { stays -= 1 } }

    /// Under the lock: nothing of it is under way, and `rest` was asked for.
    var isAtRest: Bool {
        atRest != nil && wakes == 0 && reason == nil && receiver.isQuiet && sender.posted == 0
    }

    /// Under the lock: the waiting for rest is over.
    func endRest(_ isAtRest: Bool) -> (@Sendable () -> Void)? {
        guard let body = atRest.take() else { return nil }
        receiver.resume(.rest)
        return body(isAtRest)
    }
}
