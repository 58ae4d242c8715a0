import CKernel
import Kernel
import Synchronization

/// One thread that is told which clients are ready.
///
/// It waits once, for all of them, in the system. A notice says that a receive would find something, or that a send
/// would find room; receiving and sending is still the server's own work.
public final class ReadinessServer: EchoServer, @unchecked Sendable {
    private let poller: Poller
    // What follows is the thread's alone.
    private var clients: [UInt64: WaitingClient] = [:]
    /// Never used twice, so that a late notice finds no client rather than another one.
    private var lastToken = listenerToken
    private var acceptAgain = Deadline.never

    private static let listenerToken: UInt64 = 0
    private static let noticesPerWait = 128

    /// Listens and serves from now on. - Throws: as listening does; EAGAIN when there is no thread.
    public init(on address: Address = .loopback(), limits: Limits = Limits()) throws(SystemError) {
        poller = try Poller()
        try super.init(listeningOn: address, limits)
        try poller.add(listener.descriptor, .readable, token: Self.listenerToken)
        try start("readiness")
    }

    override func run() {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: limits.receiveSize, alignment: 16)
        let notices = UnsafeMutableBufferPointer<epoll_event>.allocate(capacity: Self.noticesPerWait)
        defer {
            buffer.deallocate()
            notices.deallocate()
        }
        while !isStopping.load(ordering: .acquiring) {
            // The one place to wait, for all clients. While nothing happens, nothing runs. (I0.4)
            let count = poller.wait(notices, until: acceptAgain)
            for notice in notices[..<count] {
                if notice.data.u64 == Self.listenerToken {
                    accept()
                } else if let client = clients[notice.data.u64] {
                    serve(client, notice.data.u64, through: buffer)
                }
            }
            if acceptAgain.hasPassed { listenAgain() }
        }
        for (token, client) in clients { end(client, token, failed: false) }
    }

    /// The notice was for this client: whatever it said, do what can be done now.
    private func serve(
        _ client: WaitingClient, _ token: UInt64, through buffer: UnsafeMutableRawBufferPointer
    ) {
        do throws(SystemError) {
            let wantedToSend = client.wantsToSend
            switch try client.takeTurn(through: buffer) {
            case .moved(let count): ledger.note { $0.bytesEchoed += count }
            case .nothing: ledger.note { $0.emptyReceives += 1 }
            case .ended: return end(client, token, failed: false)
            }
            // Ask for what the client waits for now: a notice of anything else would come again and again.
            if client.wantsToSend != wantedToSend {
                let interest: Poller.Readiness = client.wantsToSend ? .writable : .readable
                try poller.change(client.socket.descriptor, interest, token: token)
            }
        } catch {
            end(client, token, failed: true)
        }
    }

    private func end(_ client: WaitingClient, _ token: UInt64, failed: Bool) {
        clients[token] = nil
        // Closing takes the socket out of the poller, too.
        client.socket.close()
        ledger.dismiss(failed: failed)
    }

    private func accept() {
        do throws(SystemError) {
            while let socket = try listener.acceptNow() {
                begin(socket)
            }
        } catch {
            // No descriptor is left, say. The listener stays ready, so it must not be asked for a while.
            noteFailedAccept()
            poller.remove(listener.descriptor)
            acceptAgain = .after(limits.acceptPause)
        }
    }

    private func begin(_ socket: Socket) {
        guard ledger.admit(limit: limits.clients) else { return socket.refuse() }
        lastToken += 1
        let client = WaitingClient(socket)
        clients[lastToken] = client
        do throws(SystemError) {
            try poller.add(socket.descriptor, .readable, token: lastToken)
        } catch {
            end(client, lastToken, failed: true)
        }
    }

    private func listenAgain() {
        acceptAgain = .never
        do throws(SystemError) {
            try poller.add(listener.descriptor, .readable, token: Self.listenerToken)
        } catch {
            acceptAgain = .after(limits.acceptPause)
        }
    }
}
