import CompletionPorts
import Glibc
import Kernel
import Stage

/// A worker handles packets that each post the next one. The queue is never empty; a request has been answered long
/// ago, and nobody asks the driver.
enum PostsStarveIO {
    private static let turns = 50_000
    /// Packets that may come before the request's, with room for a kernel that takes its time.
    private static let bound = 5_000

    static let pitfall = Pitfall(
        slug: "posts-starve-io",
        title: "handlers that keep posting keep the queue full, and nobody asks the kernel for completions",
        broken: { driver in
            let port = try BrokenLeaderPort(driver)
            let pair = try Pair()
            try pair.server.associate(with: port, key: 2, driver: port.driver)
            return try run(pair) {
                port.dequeue()
            } post: {
                port.post(key: 1)
            } close: {
                port.close()
            }
        },
        fixed: { driver in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 2)
            return try run(pair) {
                if case .completed(let packet) = port.dequeue() { packet.key } else { nil }
            } post: {
                try? port.post(key: 1)
            } close: {
                port.close()
            }
        })

    private static func run(
        _ pair: Pair, take: @escaping @Sendable () -> UInt?, post: @escaping @Sendable () -> Void,
        close: () -> Void
    ) throws -> Observation {
        let request = Request()
        let (before, met) = (Counter(), Gate())
        let worker = SteppedWorker("A")
        let (posted, answered) = (Gate(), Gate())
        let server = pair.server
        worker.begin {
            // Posted by the worker itself: on io_uring its completion needs this thread.
            try? server.receive(request, into: request.memory)
            posted.open()
            answered.pass()
            post()
            post()
            for turn in 0..<turns {
                if take() == 2 {
                    met.open()
                    break
                }
                before.add(turn + 1 - before.value)
                post()
            }
        }
        posted.pass()
        try pair.client.say("x")
        // The bytes are there before the first packet.
        var wish = pollfd(fd: server.descriptor, events: Int16(POLLIN), revents: 0)
        _ = poll(&wish, 1, 100)
        answered.open()
        worker.finish()
        close()
        worker.end()
        pair.server.close()
        let happened = !met.isOpen || before.value > bound
        return Observation(
            happened: happened,
            lines: [
                met.isOpen
                    ? "the request's packet came after \(before.value) posted ones"
                    : "after \(before.value) posted packets the request's packet had not come"
            ])
    }
}
