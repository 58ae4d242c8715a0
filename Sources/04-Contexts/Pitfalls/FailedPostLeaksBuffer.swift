import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: takes a context, posts it, and thinks that its packet will bring it back.
struct BrokenSend {
    let contexts: FreeList<IOContext>

    func push(_ socket: Socket) throws(SystemError) {
        guard let context = contexts.take() else { return }
        try context.send(1, as: .push, on: socket)
    }
}

/// A post that fails keeps its buffer.
public enum FailedPostLeaksBuffer {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "failed-post-leaks-buffer",
        title: "no packet comes for a post that failed, and nobody gives its buffer back",
        broken: { _ in
            let list = FreeList<IOContext>(maximumFree: 16) { IOContext() }
            let pair = try Pair()
            pair.server.close()
            let sender = BrokenSend(contexts: list)
            var failed = 0
            for _ in 1...100 { if (try? sender.push(pair.server)) == nil { failed += 1 } }
            return Observation(
                happened: failed == 100 && list.counters.inUse == 100,
                lines: [
                    "posts that failed: \(failed)",
                    "contexts that nobody has and nobody gave back: \(list.counters.inUse)",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let pair = try Pair()
            let connection = try stand.table.admit(pair.server)
            // The socket is closed, and the connection does not know it yet: the packet that tells it is in the queue. So
            // each push takes a context, and its post fails.
            pair.server.close()
            let before = stand.table.contexts.counters
            var refused = 0
            let push: [UInt8] = [LeavingClients.push]
            for _ in 1...100 {
                do throws(SystemError) {
                    try connection.push(push)
                } catch {
                    if error.code == EBADF { refused += 1 }
                }
            }
            let after = stand.table.contexts.counters
            return Observation(
                happened: refused != 100 || before.made != 1 || after.made != 2 || after.free != 1
                    || after.inUse != before.inUse || !stand.finish(),
                lines: [
                    "posts that failed: \(refused)",
                    "contexts in use before: \(before.inUse), after: \(after.inUse); made: \(after.made)",
                ])
        })
}
