import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: saves system calls by handing over what was posted when the worker next waits.
final class BrokenOutbox: @unchecked Sendable {
    // Only the worker's own thread uses it.
    private var posts: [() -> Void] = []

    func post(_ start: @escaping () -> Void) { posts.append(start) }

    /// To be called before each dequeue.
    func flush() {
        for start in posts { start() }
        posts = []
    }
}

/// A handler posts and then computes, and the operation does not start meanwhile.
public enum PostedButNotSubmitted {
    /// How long the handler computes at most, while the client waits for its answer.
    static let computation = Duration.milliseconds(150)

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "posted-but-not-submitted",
        title: "a handler posts a send and then computes, and nothing leaves until it has finished",
        broken: { driver in
            var options = CompletionPort.Options()
            options.driver = driver
            let outbox = BrokenOutbox()
            // The ring has this as an option of its own. With epoll somebody has to build it.
            guard driver == .ioUring else {
                return try scenario(options, flush: outbox.flush) { send in outbox.post(send) }
            }
            options.submission = .withNextWait
            return try scenario(options, flush: {}, start: { $0() })
        },
        fixed: { driver in
            var options = CompletionPort.Options()
            options.driver = driver
            return try scenario(options, flush: {}, start: { $0() })
        })

    /// A question comes; the handler posts the answer and computes until the client has it, or for the whole time.
    private static func scenario(
        _ options: CompletionPort.Options, flush: @escaping @Sendable () -> Void,
        start: @escaping @Sendable (@escaping () -> Void) -> Void
    ) throws -> Observation {
        let port = try CompletionPort(concurrency: 1, options: options)
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        let question = Request()
        let answer = Request()
        try pair.server.receive(question, into: question.memory)
        let isAnswered = Gate()
        let worker = startThread("worker") {
            while true {
                flush()
                guard case .completed(let packet) = port.dequeue() else { return }
                guard packet.operation === question else { continue }
                start {
                    let bytes = UnsafeRawBufferPointer(rebasing: question.memory[..<packet.bytes])
                    try? pair.server.send(answer, from: bytes)
                }
                let end = Deadline.after(computation)
                while !isAnswered.isOpen, !end.hasPassed {}
            }
        }
        try pair.client.say("question")
        let before = monotonicNanoseconds()
        let text = try pair.client.hear(8)
        let waited = Duration.nanoseconds(monotonicNanoseconds() - before)
        isAnswered.open()
        port.close()
        worker.join()
        pair.server.close()
        return Observation(
            happened: waited >= computation - .milliseconds(10),
            lines: [
                "the handler posts its answer and computes: for \(computation.inMilliseconds), or until the client has it",
                "the client had \"\(text)\" after \(waited.inMilliseconds)",
            ])
    }
}
