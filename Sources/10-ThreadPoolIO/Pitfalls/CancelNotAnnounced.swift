import Glibc
import Kernel
import Stage
import ThreadPoolIO

/// A post fails, and its announcement stands for ever.
public enum CancelNotAnnounced {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "cancel-not-announced",
        title: "a post fails, its announcement is not taken back, and the end waits for ever",
        broken: { driver in
            let (pool, pair) = (try ThreadPool.on(driver), try Pair())
            let io = try BrokenPoolIO(pair.server, pool)
            let request = Request()
            pair.server.close()
            io.start()
            let error = refusal { () throws(SystemError) in
                try pair.server.receive(request, into: request.memory)
            }
            // `io.cancel()` has been forgotten here.
            let hasReturned = io.waitForCallbacks(within: .milliseconds(100))
            try pool.closeAndWait()
            return Observation(
                happened: error != nil && !hasReturned && io.pending == 1,
                lines: [
                    "announced, then posted on a closed socket: \(error?.description ?? "accepted")",
                    "the account stands at \(io.pending), and waiting for the callback does not return",
                ])
        },
        fixed: { driver in
            let (pool, pair) = (try ThreadPool.on(driver), try Pair())
            let called = Counter()
            let io = try PoolIO(pair.server, pool) { _, _, _, _ in called.add() }
            let request = Request()
            pair.server.close()
            let error = refusal { () throws(SystemError) in try io.receive(request, into: request.memory) }
            let account = io.pendingCallbacks
            let hasReturned = boundedWait(Gate.patience) { try? io.waitForCallbacks() }
            // And the operation is free for another post.
            let again = refusal { () throws(SystemError) in try io.receive(request, into: request.memory) }
            try pool.closeAndWait()
            return Observation(
                happened: error == nil || account != 0 || !hasReturned || called.value != 0
                    || again?.code != EBADF,
                lines: [
                    "posted on a closed socket: \(error?.description ?? "accepted")",
                    "the account stands at \(account), and waiting returns at once",
                ])
        })

    private static func refusal(_ post: () throws(SystemError) -> Void) -> SystemError? {
        do throws(SystemError) {
            try post()
            return nil
        } catch {
            return error
        }
    }
}
