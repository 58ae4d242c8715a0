import Contexts
import Glibc
import Kernel
import Reordering

/// Answers: sent by any thread, to a client that is found by its name. (I9.4)
extension WorkerPool {
    /// Sends bytes to a client, if it is still there.
    ///
    /// - Parameters:
    ///   - ticket: The place to send it at. It has been used afterwards, whatever is returned. (I9.5)
    ///   - token: If not nil, the client's handler is told when the bytes have been handed to the system.
    /// - Returns: false when the client is gone, or its connection has no room, so that it was closed. Both are counted.
    @discardableResult
    public func reply(
        to client: ConnectionID, _ bytes: UnsafeRawBufferPointer, ticket: SendTicket? = nil, token: Int? = nil
    ) -> Bool {
        // A counted reference, for this call: the connection may end meanwhile, and will not become another one.
        guard let connection = find(client) else { return count(.departed) }
        do throws(SystemError) {
            try connection.send(bytes, ticket: ticket, token: token)
            return true
        } catch {
            guard error.code == ENOBUFS else { return count(.departed) }
            connection.close(CloseReason(error))
            return count(.unsent)
        }
    }

    /// The same for an array.
    @discardableResult
    public func reply(to client: ConnectionID, _ bytes: [UInt8], ticket: SendTicket? = nil) -> Bool {
        bytes.withUnsafeBytes { reply(to: client, $0, ticket: ticket) }
    }

    /// The answer of a job.
    func send(_ answer: UnsafeRawBufferPointer, to job: Job) {
        guard let client = job.client else { return }
        reply(to: client, answer, ticket: job.ticket, token: job.token)
    }

    /// A job without an answer gives its place up: what stands behind an open ticket waits for ever. (I9.5)
    func skip(_ job: Job) {
        guard let client = job.client, let ticket = job.ticket else { return }
        find(client)?.skip(ticket)
        events.unanswered(client)
    }
}
