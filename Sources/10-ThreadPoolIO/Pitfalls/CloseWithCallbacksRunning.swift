import Kernel
import Stage
import ThreadPoolIO

/// The object is closed and its context freed, while a callback uses it.
public enum CloseWithCallbacksRunning {
    static let slug = "close-with-callbacks-running"

    /// For the demo and the tests. The broken half runs in a child process, which it kills.
    public static let pitfall = Pitfall(
        slug: slug,
        title: "the object is closed and its context freed while a callback uses it",
        broken: { driver in try ownProcess.dies(slug, driver) },
        fixed: { driver in
            let scene = try Scene(driver)
            let isFreed = Gate()
            let ending = startThread("ending") {
                scene.pair.server.close()
                try? scene.io.waitForCallbacks()
                scene.io.close()
                scene.context.free()
                isFreed.open()
            }
            let isEarly = isFreed.pass(within: .milliseconds(20))
            scene.mayTouch.open()
            ending.join()
            try scene.pool.closeAndWait()
            return Observation(
                happened: isEarly || scene.touched.value != 1,
                lines: [
                    "a callback stood at a gate; the socket was closed, the callbacks were waited for",
                    "the context was freed \(isEarly ? "before" : "after") the callback had used it",
                ])
        })

    /// Frees the context at once. The process does not survive that.
    public static func crash(_ driver: DriverKind) throws {
        let scene = try Scene(driver)
        scene.brokenEnd()
        OwnProcess.say("the object is closed and its context freed; a callback is at a gate")
        OwnProcess.say(OwnProcess.lastWords)
        scene.mayTouch.open()
        try scene.pool.closeAndWait()
    }

    /// A socket with a context, and a callback that is about to use it.
    private final class Scene: Sendable {
        let pool: ThreadPool
        let pair: Pair
        let context: GuardedMemory
        let mayTouch = Gate()
        let touched = Counter()
        let io: PoolIO<Socket>

        init(_ driver: DriverKind) throws {
            let (isInside, context) = (Gate(), try GuardedMemory(64))
            (pool, pair, self.context) = (try ThreadPool.on(driver), try Pair(), context)
            io = try PoolIO(pair.server, pool) { [mayTouch, touched] _, _, _, bytes in
                isInside.open()
                mayTouch.pass()
                context.bytes[0] &+= UInt8(truncatingIfNeeded: bytes)
                touched.add()
            }
            let request = Request()
            try pair.client.say("hello")
            try io.receive(request, into: request.memory)
            isInside.pass()
        }

        /// ⚠︎ Broken on purpose: closing an object does not wait for anybody.
        func brokenEnd() {
            pair.server.close()
            io.close()
            context.free()
        }
    }
}
