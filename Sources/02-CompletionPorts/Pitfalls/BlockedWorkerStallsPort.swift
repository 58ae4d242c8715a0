import CompletionPorts
import Kernel
import Stage

/// One worker may run. It takes a packet and waits for something in its handler, and now nobody runs: the second
/// packet lies in the queue, the second worker sleeps, and the processor has nothing to do.
enum BlockedWorkerStallsPort {
    static let pitfall = Pitfall(
        slug: "blocked-worker-stalls-port",
        title:
            "a worker that sleeps in its handler keeps its place, and packets wait beside an idle processor",
        broken: { _ in
            let port = BrokenPort(limit: 1)
            return run {
                port.dequeue()
            } post: {
                port.post(key: $0)
            } waiting: {
                port.waiting
            } running: {
                2
            } close: {
                port.close()
            }
        },
        fixed: { driver in
            let port = try CompletionPort.on(driver, concurrency: 1)
            return run {
                if case .completed(let packet) = port.dequeue() { packet.key } else { nil }
            } post: {
                try? port.post(key: $0)
            } waiting: {
                port.workers.waiting
            } running: {
                port.workers.running
            } close: {
                port.close()
            }
        })

    private static func run(
        take: @escaping @Sendable () -> UInt?, post: (UInt) -> Void, waiting: () -> Int, running: () -> Int,
        close: () -> Void
    ) -> Observation {
        let (a, b) = (SteppedWorker("A"), SteppedWorker("B"))
        let (resume, stop, tookThird) = (Gate(), Gate(), Gate())
        var lines: [String] = []
        post(1)
        a.begin {
            _ = take()
            resume.pass()
            // It computes now, and then asks for the next packet.
            while !stop.isOpen {}
            if take() == 3 { tookThird.open() }
        }
        _ = eventually { a.isAsleep }
        b.begin { _ = take() }
        _ = eventually { waiting() == 1 && b.isAsleep || b.isDone }
        lines.append("A took packet 1 and sleeps in its handler; B waits for a packet")
        post(2)
        let isReplaced = b.finish(within: .milliseconds(500))
        lines.append(
            isReplaced
                ? "packet 2 comes: B is released and handles it"
                : "packet 2 comes: B still waits after 500 ms")
        var isLimited = true
        if isReplaced {
            resume.open()
            // A runs again, and the port has seen it.
            _ = eventually { running() == 2 }
            b.begin { _ = take() }
            _ = eventually { waiting() == 1 && b.isFastAsleep }
            post(3)
            isLimited = !b.finish(within: .milliseconds(50))
            stop.open()
            isLimited = tookThird.pass() && isLimited
            lines.append(
                isLimited
                    ? "A resumes and computes; packet 3 comes: B is not released, and A takes it when it asks"
                    : "A resumes and computes; packet 3 comes: B is released beside it")
        }
        resume.open()
        stop.open()
        close()
        for worker in [a, b] { worker.end() }
        return Observation(happened: !isReplaced || !isLimited, lines: lines)
    }
}
