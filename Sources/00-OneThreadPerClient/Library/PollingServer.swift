import Kernel
import Synchronization

/// One thread that asks every client, again and again, whether it has sent something.
///
/// No call waits for a client: a silent client costs one question. But the questions never end, and the thread uses
/// a whole processor when nothing happens at all: this server does not keep I0.4.
public final class PollingServer: EchoServer, @unchecked Sendable {
    /// Listens and serves from now on. - Throws: as listening does; EAGAIN when there is no thread.
    public init(on address: Address = .loopback(), limits: Limits = Limits()) throws(SystemError) {
        try super.init(listeningOn: address, limits)
        try start("polling")
    }

    override func run() {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: limits.receiveSize, alignment: 16)
        defer { buffer.deallocate() }
        var clients: [WaitingClient] = []
        var acceptAgain = Deadline.now
        while !isStopping.load(ordering: .acquiring) {
            if acceptAgain.hasPassed, !accept(&clients) { acceptAgain = .after(limits.acceptPause) }
            var bytes = 0
            var empty = 0
            clients.removeAll { client in
                do throws(SystemError) {
                    switch try client.takeTurn(through: buffer) {
                    case .moved(let count): bytes += count
                    case .nothing: empty += 1
                    case .ended: return end(client, failed: false)
                    }
                    return false
                } catch {
                    return end(client, failed: true)
                }
            }
            ledger.note {
                ($0.bytesEchoed, $0.emptyReceives) = ($0.bytesEchoed + bytes, $0.emptyReceives + empty)
            }
        }
        for client in clients { _ = end(client, failed: false) }
    }

    /// Takes the clients that wait. False when the system had nothing left to accept with.
    private func accept(_ clients: inout [WaitingClient]) -> Bool {
        do throws(SystemError) {
            while let socket = try listener.acceptNow() {
                if ledger.admit(limit: limits.clients) {
                    clients.append(WaitingClient(socket))
                } else {
                    socket.refuse()
                }
            }
            return true
        } catch {
            noteFailedAccept()
            return false
        }
    }

    private func end(_ client: WaitingClient, failed: Bool) -> Bool {
        client.socket.close()
        ledger.dismiss(failed: failed)
        return true
    }
}
