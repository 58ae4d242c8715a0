import CompletionPorts
import Contexts
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: the number is given under the lock, and the read is posted behind it.
final class BrokenNumbering: @unchecked Sendable {
    private let socket: Socket
    private let lock = Lock()
    private var next = 0

    init(_ socket: Socket) { self.socket = socket }

    func post(_ read: Read, between: () -> Void) throws(SystemError) {
        lock.locked {
            read.number = next
            next += 1
        }
        between()
        try read.post(on: socket)
    }
}

/// Numbering a read and posting it are two steps.
public enum NumberAndPostNotAtomic {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "number-and-post-not-atomic",
        title: "between a read's number and its post another worker posts, and numbers and data disagree",
        broken: { driver in
            let pair = try Pair()
            var options = CompletionPort.Options()
            options.driver = driver
            let port = try CompletionPort(concurrency: 1, options: options)
            try port.associate(pair.server, key: 1)
            let numbering = BrokenNumbering(pair.server)
            let (isNumbered, isPosted) = (Gate(), Gate())
            inThreads(2, named: "worker") { worker in
                if worker == 1 { isNumbered.pass() }
                try? numbering.post(Read()) {
                    isNumbered.open()
                    if worker == 0 { isPosted.pass() }
                }
                isPosted.open()
            }
            try pair.client.say("one,two,")
            var chunks: [(number: Int, text: String)] = []
            for _ in 0..<2 {
                guard case .completed(let packet) = port.dequeue(timeout: .seconds(10)),
                    let read = packet.operation as? Read
                else { break }
                chunks.append((read.number, text(read.contents)))
            }
            port.close()
            let ordered = chunks.sorted { $0.number < $1.number }.map(\.text).joined()
            return Observation(
                happened: ordered == "two,one,",
                lines: ["sent:                 one,two,"]
                    + chunks.map { "the read with number \($0.number) has got: \($0.text)" }
                    + ["by their numbers:     \(ordered)"])
        },
        fixed: { driver in
            let pair = try Pair()
            let (isNumbered, isOvertaken) = (Gate(), Gate())
            let cameBetween = Guarded<Bool?>(nil)
            var probe = StreamProbe()
            // Read 2 has its number, and waits for somebody to take number 3 before it is posted.
            probe.numbered = { chunk in
                if chunk.number.value == 3 { isOvertaken.open() }
                guard chunk.number.value == 2 else { return }
                isNumbered.open()
                let passed = isOvertaken.pass(within: .milliseconds(200))
                cameBetween.locked { $0 = passed }
            }
            let hub = try makeHub(driver, reads: 2) { $0.probe = probe }
            let kept = Guarded<[Chunk]>([])
            let sink = Sink { chunk in
                guard chunk.number.value < 2 else { return }
                chunk.keep()
                kept.locked { $0.append(chunk) }
            }
            try hub.adopt(pair.server, handler: sink)
            try pair.client.say("zero----")
            let bothAreKept = eventually { kept.locked { $0.count } == 2 && sink.received.count == 8 }
            // Two workers give a chunk each back, at the same time.
            inThreads(bothAreKept ? 2 : 0, named: "worker") { worker in
                if worker == 1 { isNumbered.pass() }
                kept.locked { $0[worker] }.giveBack()
            }
            try pair.client.say("one,two,")
            let isThere = eventually { sink.received.count == 16 }
            let got = text(sink.received)
            kept.locked { $0 = [] }
            let isClean = hub.stop()
            let between = cameBetween.locked { $0 }
            return Observation(
                happened: !isThere || got != "zero----one,two," || between != false || !isClean,
                lines: [
                    "one worker waits between number and post: "
                        + (between == false ? "nobody else gets a number" : "another one gets in"),
                    "sent:     one,two,", "received: \(got.dropFirst(8))",
                ])
        })
}
