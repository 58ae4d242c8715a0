import Contexts
import Framing
import FramingPitfalls
import Kernel
import Reordering
import Stage

/// Streams that something has happened to, in large numbers (chapter 06).
enum FramingStress {
    static let streams = 1_000_000
    static let connections = 10_000

    /// A million streams through readers alone; then some thousand connections to a server on each driver.
    @Sendable static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        var report = MutatedStreams.Report()
        let start = monotonicNanoseconds()
        for seed in 0..<100 {
            var streams = MutatedStreams(seed: UInt64(1 + seed))
            streams.run(FramingStress.streams / 100)
            report.add(streams.report)
        }
        holds = tell(report, since: start, terminal)
        for driver in DriverKind.permitted { holds = try serve(driver, terminal) && holds }
        return holds
    }

    /// Goes on for as long as it is told, with seeds that no run before had, and names them.
    @Sendable static func fuzz(_ terminal: Terminal) -> Bool {
        let deadline = Deadline.after(Stress.time(unlessTold: .seconds(10)))
        let start = monotonicNanoseconds()
        let first = UInt64(start)
        let found = Guarded(MutatedStreams.Report())
        inThreads(2, named: "fuzz") { thread in
            var seed = first &+ UInt64(thread) << 40
            while !deadline.hasPassed, found.locked({ $0.complaints.isEmpty }) {
                var streams = MutatedStreams(seed: seed)
                streams.run(1_000)
                found.locked { $0.add(streams.report) }
                seed += 1
            }
        }
        terminal.say("first seed \(first)")
        return tell(found.locked { $0 }, since: start, terminal)
    }

    private static func tell(_ report: MutatedStreams.Report, since start: UInt64, _ terminal: Terminal)
        -> Bool
    {
        let time = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
        terminal.say(
            "\(readable(report.streams)) streams, \(readable(report.faulty)) of them faulty, "
                + "\(readable(report.messages)) messages in \(readable(time)); "
                + "the largest buffer had \(report.peakPercent) % of its limit")
        for complaint in report.complaints { terminal.say("  \(complaint)") }
        return report.complaints.isEmpty && report.peakPercent <= 100 && report.faulty > report.streams / 10
            && report.messages > report.streams
    }

    /// Each connection brings one stream, in its pieces, and expects the answers to what is valid of it.
    private static func serve(_ driver: DriverKind, _ terminal: Terminal) throws -> Bool {
        let codec = LengthPrefixed(.two, .bigEndian, maximumLength: 60)
        let server = try FramedService(codec, options: .on(driver, workers: 2, reads: 4, chunk: 32))
        let address = try server.listen {
            FramedEcho()
        }
        let wrong = Counter()
        let messages = Counter()
        let faulty = Counter()
        let cut = Counter()
        inThreads(4, named: "client") { thread in
            var source = MutatedStreams(seed: UInt64(thread + 1))
            for _ in 0..<connections / 4 {
                let (stream, cuts, expected) = source.next(codec)
                do {
                    let client = try Client(to: address)
                    var start = 0
                    for end in cuts + [stream.count] {
                        try client.send(Array(stream[start..<end]))
                        start = end
                    }
                    try client.socket.shutDownSending()
                    let heard = try client.receive()
                    if heard != (try Streams.encode(expected.messages, codec)) { wrong.add() }
                    client.socket.close()
                } catch {
                    wrong.add()
                }
                messages.add(expected.messages.count)
                switch expected.error?.fault {
                case .endedInside?: cut.add()
                case nil: break
                default: faulty.add()
                }
            }
        }
        let isOver = eventually { server.hub.counters.alive == 0 }
        let isClean = server.stop()
        let ledger = server.ledger
        terminal.say(
            "\(driver): \(readable(connections)) connections, \(readable(ledger.messages)) messages, "
                + "\(readable(ledger.malformed)) malformed, \(readable(ledger.cutShort)) cut short, "
                + "\(wrong.value) answered wrongly")
        return isOver && isClean && wrong.value == 0 && ledger.messages == messages.value
            && ledger.malformed == faulty.value && ledger.cutShort == cut.value
    }
}

extension MutatedStreams.Report {
    fileprivate mutating func add(_ other: MutatedStreams.Report) {
        streams += other.streams
        faulty += other.faulty
        messages += other.messages
        peakPercent = max(peakPercent, other.peakPercent)
        complaints = Array((complaints + other.complaints).prefix(5))
    }
}
