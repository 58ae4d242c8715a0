import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: takes the descriptor's number out of the context, and calls the system a little later.
struct BrokenSender {
    func send(_ text: String, on socket: Socket, justBeforeTheCall: () throws -> Void) rethrows -> Int {
        let number = socket.descriptor
        try justBeforeTheCall()
        return text.withCString { Glibc.send(number, $0, strlen($0), Int32(MSG_NOSIGNAL)) }
    }
}

/// One thread closes, the number is reused, and another thread's call lands on a stranger's connection.
public enum HandleReusedWhileClosing {
    /// For the demo and the tests. Descriptors are the whole process's: the tests run the broken half in one of its own.
    public static let pitfall = Pitfall(
        slug: "handle-reused-while-closing",
        title: "a socket is closed and its number reused, and a late call lands on a stranger's connection",
        broken: { _ in
            let first = try Pair()
            var waiting = try WaitingClients()
            var stranger: (server: Socket, client: Socket, others: [Socket])?
            let number = first.server.descriptor
            let sent = try BrokenSender().send("for the first", on: first.server) {
                // Another thread, at the worst moment.
                first.server.close()
                stranger = try waiting.accept(number: number)
            }
            let heard = try stranger?.client.hear(13) ?? ""
            withExtendedLifetime(stranger) {}
            return Observation(
                happened: sent == 13 && heard == "for the first",
                lines: [
                    "number \(number) was closed and given to the next connection between look and call",
                    "the stranger heard: \"\(heard)\"",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let (first, stranger) = (try Pair(), try Pair())
            let connection = try stand.table.admit(first.server)
            let words = Array("for the first".utf8)
            let accepted = Counter()
            let refused = Counter()
            let wrong = Counter()
            // One thread posts for all it is worth, another closes in the middle of it.
            let poster = startThread("poster") {
                let deadline = Deadline.after(Gate.patience)
                while refused.value < 1_000, !deadline.hasPassed {
                    do throws(SystemError) {
                        try connection.push(words)
                        accepted.add()
                    } catch {
                        // Closed, or, before that, more pushes than may be pending.
                        switch error.code {
                        case EBADF: refused.add()
                        case ENOBUFS: break
                        default: wrong.add()
                        }
                    }
                }
            }
            let isPosting = stand.turns { accepted.value >= 500 }
            connection.close()
            try stand.table.admit(stranger.server)
            poster.join()
            let after = (try? connection.push(words)) == nil
            // The same without the connection in between, which knows that it is closed: the socket knows it, too.
            let late = Request()
            var refusal: SystemError?
            do throws(SystemError) {
                try first.server.receive(late, into: late.memory)
            } catch {
                refusal = error
            }
            _ = stand.turns { stand.table.contexts.counters.inUse == 1 }
            let heard = try stranger.client.hear(1, within: .milliseconds(20))
            return Observation(
                happened: !isPosting || !after || refusal?.code != EBADF || refused.value != 1_000
                    || wrong.value > 0 || heard != "" || !stand.finish(),
                lines: [
                    "a close among many posts: \(accepted.value) accepted before it, \(refused.value) refused as closed, "
                        + "\(wrong.value) went wrong otherwise",
                    "the stranger heard: \"\(heard)\"",
                ])
        })
}
