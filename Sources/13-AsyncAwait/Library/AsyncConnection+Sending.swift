import Glibc
import Kernel
import Reordering

/// Sending: from any task or thread, each send whole and in the order of the calls. (I13.7)
extension AsyncConnection {
    /// A send that a task waits for.
    struct PendingSend {
        let token: Int
        var continuation: UnsafeContinuation<Void, Never>?
        var isSent = false
        var isCancelled = false
    }

    /// Sends a chunk that was received, without a copy, and returns at once: it is read into again when it has left, so a
    /// client that does not read its answers is not read from.
    ///
    /// - Throws: as `StreamConnection.send`.
    public func send(_ chunk: Chunk) throws(SystemError) { try stream.send(chunk) }

    /// Sends a copy of some bytes as one piece, and waits until the system has taken all of it: so who sends faster than the
    /// other side reads is held back.
    ///
    /// The bytes are the connection's from the call on. They leave also when the waiting is cancelled; and what other tasks
    /// send goes before or behind them, never between.
    ///
    /// - Throws: ECANCELED when the task was cancelled while it waited; ENOBUFS when more sends are pending than
    ///   `maximumPendingSends`; EBADF, ECONNRESET and the like when the connection has ended meanwhile.
    public func send(
        _ bytes: [UInt8], isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) {
        let token = lock.locked {
            lastToken += 1
            sends.append(PendingSend(token: lastToken))
            return lastToken
        }
        do throws(SystemError) {
            if bytes.count > StreamHub.Options().chunkCapacity {
                try stream.send(bytes.withUnsafeBytes { SharedBytes($0) }, token: token)
            } else {
                try stream.send(bytes, token: token)
            }
        } catch {
            lock.locked { sends.removeAll { $0.token == token } }
            throw error
        }
        await withTaskCancellationHandler(
            operation: {
                await withUnsafeContinuation(isolation: isolation) { waitForSend(token, $0) }
            }, onCancel: { lock.locked { takeSender(token, isSent: false) }?.resume() }, isolation: isolation)
        try concludeSend(token)
    }

    private func waitForSend(_ token: Int, _ continuation: UnsafeContinuation<Void, Never>) {
        let isNow = lock.locked {
            guard let index = sends.firstIndex(where: { $0.token == token }), !sends[index].isSent,
                !sends[index].isCancelled, !scope.isCancelled, endCode == nil
            else { return true }
            sends[index].continuation = continuation
            return false
        }
        if isNow { continuation.resume() }
    }

    private func concludeSend(_ token: Int) throws(SystemError) {
        let error: SystemError? = lock.locked {
            let send = sends.first { $0.token == token }
            sends.removeAll { $0.token == token }
            if send?.isSent == true { return nil }
            return SystemError(endCode ?? SystemError.cancelled, attempted: "send")
        }
        if let error { throw error }
    }

    /// Under the lock: a send has left, or its task is cancelled; the task that waits for it.
    func takeSender(_ token: Int, isSent: Bool = true) -> UnsafeContinuation<Void, Never>? {
        guard let index = sends.firstIndex(where: { $0.token == token }) else { return nil }
        if isSent { sends[index].isSent = true } else { sends[index].isCancelled = true }
        return sends[index].continuation.take()
    }

    /// Under the lock: all tasks that wait for a send.
    func takeSenders() -> [UnsafeContinuation<Void, Never>?] {
        sends.indices.map { sends[$0].continuation.take() }
    }
}
