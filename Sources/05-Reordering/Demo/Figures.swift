import Contexts
import Glibc
import Kernel
import Reordering
import ReorderingPitfalls
import Stage

/// A byte of the stream, by its position.
private func byte(_ position: Int) -> UInt8 { UInt8(truncatingIfNeeded: (position &* 0x9e37_79b1) >> 13) }

/// Counts the bytes that come where others should be.
private final class WrongBytes: StreamHandler {
    private let seen = Guarded((received: 0, wrong: 0))
    let over = Gate()

    var received: Int { seen.locked { $0.received } }
    var wrong: Int { seen.locked { $0.wrong } }

    func received(_ chunk: Chunk, on connection: StreamConnection) { take(chunk.contents) }

    func take(_ bytes: UnsafeRawBufferPointer) {
        seen.locked { seen in
            for (offset, value) in bytes.enumerated() where value != byte(seen.received + offset) {
                seen.wrong += 1
            }
            seen.received += bytes.count
        }
    }

    func closed(_ connection: StreamConnection, _ reason: CloseReason) { over.open() }
}

/// One stream, no worker held back: what the machine does by itself.
func showStream(_ options: Stage.Options, on terminal: Terminal) throws {
    let total = 20_000 * 16
    terminal.heading("20,000 chunks of one stream, no worker held back")
    var rows: [[String]] = []
    var isRight = true
    let pending = options.number(reads) ?? 4
    for workers in [1, 2] {
        let pair = try Pair()
        let seen = WrongBytes()
        let stream = try BrokenStream(
            options.driver, pair.server, reads: pending, workers: workers, capacity: 16
        ) { _ in
        } process: { _, bytes in
            bytes.withUnsafeBytes(seen.take)
        }
        try pair.client.say((0..<total).map(byte))
        _ = eventually { seen.received == total }
        stream.stop()
        rows.append(["without", "\(workers)", readable(seen.received), readable(seen.wrong), "", ""])
    }
    for workers in [2, 4] {
        let hub = try makeHub(options.driver, reads: pending, workers: workers, capacity: 16)
        let pair = try Pair()
        let handler = WrongBytes()
        let connection = try hub.adopt(pair.server, handler: handler)
        try pair.client.say((0..<total).map(byte))
        try pair.client.shutDownSending()
        let isOver = handler.over.pass()
        let window = connection.window
        isRight = isRight && isOver && hub.stop() && handler.wrong == 0 && handler.received == total
        rows.append([
            "with", "\(workers)", readable(handler.received), readable(handler.wrong), readable(window.early),
            "\(window.mostWaiting)",
        ])
    }
    terminal.table(
        [
            "numbers", "workers", "bytes received", "in the wrong place", "chunks that waited",
            "at most at a time",
        ], rows)
    terminal.claim("with numbers every byte is in its place, for any number of workers", holds: isRight)
}

/// Questions that are answered by four threads: with tickets, and without any.
func showAnswers(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("200 questions of one client, answered by four threads")
    var rows: [[String]] = []
    var misplaced: [Bool: Int] = [:]
    for isOrdered in [false, true] {
        let pair = try Pair()
        let jobs = Jobs(takesTickets: isOrdered)
        let hub = try makeHub(options.driver, reads: 1, capacity: 1) { $0.maximumPendingSends = 256 }
        try hub.adopt(pair.server, handler: jobs)
        let threads = (0..<4).map { index in startThread("answer \(index)") { jobs.work() } }
        let questions = (0..<200).map { UInt8($0) }
        try pair.client.say(questions)
        let answers = try pair.client.hearBytes(200)
        let wrong = zip(questions, answers).count { $0 != $1 }
        misplaced[isOrdered] = answers.count == 200 ? wrong : -1
        jobs.end()
        for thread in threads { thread.join() }
        _ = hub.stop()
        rows.append([isOrdered ? "taken" : "none", readable(answers.count), readable(wrong)])
    }
    terminal.table(["tickets", "answers", "answers to another question"], rows)
    terminal.claim("with tickets each answer comes to its question", holds: misplaced[true] == 0)
}

/// Takes a ticket for each question as it comes, if it is to, and leaves the rest to others.
private final class Jobs: StreamHandler, @unchecked Sendable {
    private let takesTickets: Bool
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var waiting: [@Sendable () -> Void] = []
    private var isOver = false

    init(takesTickets: Bool) { self.takesTickets = takesTickets }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        guard let question = chunk.contents.first else { return }
        let ticket = takesTickets ? try? connection.takeTicket() : nil
        monitor.locked {
            waiting.append {
                // Some are harder than others.
                usleep(UInt32(question % 7) * 50)
                try? connection.send([question], ticket: ticket)
            }
            monitor.signal()
        }
    }

    func work() {
        while true {
            let job = monitor.locked { () -> (@Sendable () -> Void)? in
                while waiting.isEmpty, !isOver { monitor.wait() }
                return waiting.isEmpty ? nil : waiting.removeFirst()
            }
            guard let job else { return }
            job()
        }
    }

    func end() {
        monitor.locked {
            isOver = true
            monitor.broadcast()
        }
    }
}

/// Packets with their numbers on the wire, over four connections.
func showPackets(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("2,000 numbered packets of one sender, over four connections")
    let count = 2_000
    let values = Guarded<[UInt64]>([])
    let arrived = Guarded<[UInt32]>([])
    let collector = PacketCollector(capacity: 64) { packet in values.locked { $0.append(packet.value) } }
    let hub = try makeHub(options.driver, reads: 2, workers: 2, capacity: 256)
    let address = try hub.listen { _ in collector.handler() }
    let lanes = try (0..<4).map { _ in try Socket.connected(to: address) }
    var random = SystemRandomNumberGenerator()
    for first in stride(from: 0, to: count, by: 50) {
        for number in (first..<min(count, first + 50)).shuffled(using: &random) {
            let packet = NumberedPacket(
                client: 1, number: SequenceNumber(UInt32(number)), value: UInt64(number))
            arrived.locked { $0.append(UInt32(number)) }
            try lanes[Int.random(in: 0..<4, using: &random)].say(packet.bytes)
        }
        // Never further ahead than the window: the next fifty when these have completed.
        let end = min(count, first + 50)
        guard eventually({ values.locked { $0.count } == end }) else { break }
    }
    let early = arrived.locked { sent in zip(sent, sent.dropFirst()).count { $0 > $1 } }
    let isInOrder = values.locked { $0 } == Array(0..<UInt64(count))
    _ = hub.stop()
    terminal.say("sent in any order: \(readable(early)) times a smaller number behind a larger one")
    terminal.claim("all \(readable(count)) came out once, and in order", holds: isInOrder)
}

/// What several pending reads bring by themselves. No claim: it is what this machine does today.
func showPendingReads(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("What several pending reads bring")
    var rows: [[String]] = []
    for (size, name) in [(64, "64 bytes"), (65_536, "64 KiB")] {
        for workers in [1, 2] {
            var row = [name, "\(workers)"]
            for pending in [1, 4, 8] {
                let hub = try makeHub(
                    options.driver, reads: pending, workers: workers, capacity: max(1_024, size))
                let address = try hub.listen { _ in Echo() }
                let report = try ClientLoad(
                    to: address, connections: 8, messageSize: size, duration: .milliseconds(250)
                ).run()
                _ = hub.stop()
                row.append(readable(Int(report.perSecond)))
            }
            rows.append(row)
        }
    }
    terminal.table(
        ["message", "workers", "1 pending read, round trips/s", "4", "8"], rows)
}
