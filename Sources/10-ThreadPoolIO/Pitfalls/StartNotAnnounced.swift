import Kernel
import Stage
import ThreadPoolIO

/// An operation is posted on a pool's handle, and the pool was not told before.
public enum StartNotAnnounced {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "start-not-announced",
        title: "an operation is posted without telling the pool first: its completion calls nobody",
        broken: { driver in
            let (pool, pair) = (try ThreadPool.on(driver), try Pair())
            let io = try BrokenPoolIO(pair.server, pool)
            let (first, second) = (Request(), Request())
            try pair.client.say("hello")
            // `io.start()` has been forgotten here.
            try pair.server.receive(first, into: first.memory)
            let isIgnored = eventually { io.ignored.value == 1 }
            let account = io.pending
            io.start()
            try pair.server.receive(second, into: second.memory)
            // The second one is announced and pending, and the account says that nothing is.
            let hasReturned = io.waitForCallbacks(within: Gate.patience) && second.isPending
            try pair.client.say("again")
            let isLost = eventually { io.ignored.value == 2 }
            pair.server.close()
            try pool.closeAndWait()
            return Observation(
                happened: isIgnored && account == -1 && hasReturned && isLost && io.calls.value == 0,
                lines: [
                    "a receive was posted without start(): it completed with 5 bytes, and nobody was called",
                    "the account stood at \(account)",
                    "the next one was announced; waiting for its callback returned while it was pending",
                    "callbacks for two completed receives: \(io.calls.value)",
                ])
        },
        fixed: { driver in
            let (pool, pair) = (try ThreadPool.on(driver), try Pair())
            let (atGate, called) = (Gate(), Counter())
            let io = try PoolIO(pair.server, pool) { _, _, error, bytes in
                atGate.pass()
                if error == nil { called.add(bytes) }
            }
            let (stray, request) = (Request(), Request())
            try pair.client.say("hello")
            // There is no other way through the object.
            try io.receive(request, into: request.memory)
            let account = io.pendingCallbacks
            let hasReturned = Gate()
            let waiting = startThread("waiting") {
                try? io.waitForCallbacks()
                hasReturned.open()
            }
            let isEarly = hasReturned.pass(within: .milliseconds(20))
            atGate.open()
            waiting.join()
            // Past it, on the socket itself, an operation is nobody's, and the account does not suffer.
            try pair.client.say("hello")
            try pair.server.receive(stray, into: stray.memory)
            let isStray = eventually { pool.counters.strays == 1 } && io.pendingCallbacks == 0
            pair.server.close()
            try pool.closeAndWait()
            return Observation(
                happened: !isStray || account != 1 || isEarly || called.value != 5,
                lines: [
                    "posted through the object: the account stood at \(account), 5 bytes brought one callback",
                    "waiting returned \(isEarly ? "before" : "after") the callback had returned",
                    "posted past it, on the socket: counted as a stray, \(pool.counters.strays)",
                ])
        })
}
