import CompletionPorts
import Kernel
import Reordering

extension PortSet {
    /// Moves a connection to another port. It returns at once; `moved` tells when it is done. Meanwhile no read of the connection
    /// is pending; what it is sending is sent. No byte is lost, repeated or out of order, however many reads were pending.
    /// (I12.5)
    ///
    /// - Throws: EINVAL when there is no such port, EBADF when the connection is over, ENOTCONN when it does not stand yet;
    ///   EBUSY while a file is under way, or another move. The last two are counted as refused.
    ///
    /// Win32 counterpart: the same steps around `FileReplaceCompletionInformation` (Windows 8.1).
    public func reassign(_ connection: StreamConnection, to port: Int) throws(SystemError) {
        guard ports.indices.contains(port) else {
            throw SystemError.invalid("move \(connection.id) to port \(port) of \(ports.count)")
        }
        let deadline = Deadline.after(options.longestMove).nanoseconds
        guard try ledger.begins(connection.id, to: port, until: deadline) else { return }
        do throws(SystemError) {
            try connection.rest { [self] isAtRest in
                if isAtRest { return move(connection, to: port) }
                ledger.givenUp(connection.id)
                return nil
            }
        } catch {
            ledger.refused(connection.id)
            throw error
        }
    }

    /// The connection is at rest, and its lock is held: no operation of it is pending and no packet under way, so none can
    /// still come to the former port. (I12.6)
    private func move(_ connection: StreamConnection, to port: Int) -> (@Sendable () -> Void)? {
        options.beforeMove(connection)
        do throws(SystemError) {
            try ports[port].reassociate(connection.socket, key: connection.key)
        } catch {
            ledger.givenUp(connection.id)
            return nil
        }
        connection.currentPort = ports[port]
        let from = ledger.moved(connection.id, connection.counted)
        return { [moved = options.moved] in moved(connection, from, port) }
    }
}
