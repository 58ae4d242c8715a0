import Contexts
import Framing
import FramingPitfalls
import Kernel
import Reordering
import Stage
import Synchronization
import Testing

@Suite("Chapter 06: servers that speak in messages", .serialized)
struct Chapter06FramingServer {
    private typealias Prefix = LengthPrefixed

    // I6.1
    @Test(
        "Messages come back whole, whatever the chunks, the workers and the pending reads",
        arguments: DriverKind.permitted)
    func echo(driver: DriverKind) async throws {
        try await onAThread { facts in
            for (workers, reads, chunk) in [(1, 1, 4096), (2, 4, 7), (4, 8, 64), (2, 64, 65_536)] {
                let server = try FramedService(
                    Prefix.article, options: .on(driver, workers: workers, reads: reads, chunk: chunk)
                )
                let address = try server.listen { FramedEcho() }
                let messages = (0..<100).map { [UInt8](repeating: UInt8($0), count: $0 * 7 % 501) }
                let stream = try Streams.encode(messages, Prefix.article)
                let clients = try (0..<4).map { _ in try Client(to: address) }
                for client in clients {
                    let (heard, _) = try client.sendBeforeReading(stream)
                    facts.expect(heard == stream)
                    client.socket.close()
                }
                facts.expect(eventually { server.ledger.messages == 400 })
                facts.expect(chunk != 7 || server.ledger.joined > 300)
                facts.expect(server.stop() && server.ledger.malformed == 0 && server.ledger.cutShort == 0)
            }
        }
    }

    // I6.4
    @Test(
        "What is valid is answered; then the client is told what was wrong and where",
        arguments: DriverKind.permitted)
    func malformed(driver: DriverKind) async throws {
        try await onAThread { facts in
            let server = try FramedService(Lines(maximumLength: 10), options: .on(driver))
            let address = try server.listen {
                FramedEcho(tellsErrors: true)
            }
            let other = try Client(to: address)
            let client = try Client(to: address)
            try client.send(Array("one\ntwo\nmuch too long a line\nthree\n".utf8))
            try client.socket.shutDownSending()
            let heard = String(decoding: try client.receive(), as: UTF8.self)
            // Eleven bytes of a line are as many as any line may have, and so the error's text does not fit either.
            facts.expect(heard == "one\ntwo\n")
            facts.expect(server.ledger.malformed == 1)
            try other.send(Array("still\n".utf8))
            facts.expect(String(decoding: try other.receive(6), as: UTF8.self) == "still\n")
            facts.expect(server.stop())
        }
    }

    // I6.4
    @Test("The error's text names the offset in the stream", arguments: DriverKind.permitted)
    func told(driver: DriverKind) async throws {
        try await onAThread { facts in
            let server = try FramedService(Lines(maximumLength: 100), options: .on(driver, chunk: 16))
            let address = try server.listen {
                FramedEcho(tellsErrors: true)
            }
            let client = try Client(to: address)
            try client.send(Array("one\n".utf8) + [UInt8](repeating: 0x78, count: 150))
            try client.socket.shutDownSending()
            let heard = String(decoding: try client.receive(), as: UTF8.self)
            facts.expect(heard == "one\nerror: offset 104: no end of line within 100 bytes\n")
            facts.expect(server.stop())
        }
    }

    // I6.7
    @Test("All whole messages of one chunk are answered with one send", arguments: DriverKind.permitted)
    func oneSend(driver: DriverKind) async throws {
        try await onAThread { facts in
            // With one worker the packets of sends wait until the handler is through: as many contexts would be in use at
            // a time as sends were posted. Here it is the one that reads and takes the answers back.
            let server = try FramedService(Prefix.article, options: .on(driver))
            let address = try server.listen { FramedEcho() }
            let client = try Client(to: address)
            let stream = try Streams.encode((0..<50).map { [UInt8]("message \($0)".utf8) }, Prefix.article)
            for _ in 0..<20 {
                try client.send(stream)
                facts.expect(try client.receive(stream.count) == stream)
            }
            facts.expect(server.ledger.messages == 1000)
            facts.expect(server.hub.counters.chunks.peak == 1)
            facts.expect(server.stop())
        }
    }

    // I6.7
    @Test(
        "A client that writes before it reads is held back, and all of it comes back",
        arguments: DriverKind.permitted)
    func heldBack(driver: DriverKind) async throws {
        try await onAThread { facts in
            let server = try FramedService(
                Prefix(.four, maximumLength: 20_000), options: .on(driver, workers: 2, reads: 4)
            )
            let address = try server.listen { FramedEcho() }
            let client = try Client(to: address)
            let message = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let stream = try Streams.encode(
                Array(repeating: message, count: 800), Prefix(.four, maximumLength: 20_000))
            let (heard, before) = try client.sendBeforeReading(stream)
            facts.expect(heard == stream)
            // Else the system took all of it, and nothing was held back.
            facts.expect(before < stream.count)
            // Four that read, and the answers to four that are too long for their chunk. One more may be with the second
            // worker: it has taken its packet, and not yet handled it, when the chunk behind it is read again.
            let peak = server.hub.counters.chunks.peak
            facts.expect(peak <= 4 + 4 * 5 + 1, "\(peak) chunks")
            facts.expect(server.stop())
        }
    }

    // I6.5
    @Test(
        "One message of a connection at a time, in order, for any number of workers",
        arguments: DriverKind.permitted)
    func oneAtATime(driver: DriverKind) async throws {
        try await onAThread { facts in
            let worst = Counter()
            let wrong = Counter()
            let options = StreamHub.Options.on(driver, workers: 4, reads: 8, chunk: 64)
            let server = try FramedService(Prefix(.two), options: options)
            let address = try server.listen {
                InOrder(worst: worst, wrong: wrong)
            }
            var numbers = SplitBuffer(limit: 1 << 20)
            for number in 0..<UInt32(5_000) {
                var message = SplitBuffer(limit: 4)
                try message.append(number, .bigEndian)
                try message.withBytes { try Prefix(.two).append($0, to: &numbers) }
            }
            let stream = contents(numbers)
            inThreads(4) { _ in
                guard let client = try? Client(to: address), (try? client.send(stream)) != nil,
                    (try? client.socket.shutDownSending()) != nil, (try? client.receive()) != nil
                else { return _ = wrong.add() }
            }
            facts.expect(worst.value == 0 && wrong.value == 0)
            facts.expect(server.ledger.messages == 20_000)
            facts.expect(server.stop())
        }
    }

    @Test(
        "Raw bytes follow a message, with their chunk to keep, and messages follow them",
        arguments: DriverKind.permitted)
    func rawBytes(driver: DriverKind) async throws {
        try await onAThread { facts in
            let server = try FramedService(
                Prefix(.two), options: .on(driver, workers: 2, reads: 4, chunk: 50))
            let address = try server.listen {
                RawCounter()
            }
            let client = try Client(to: address)
            var stream: [UInt8] = []
            var sums: [Int] = []
            for count in [0, 1, 49, 50, 51, 1000] {
                var header = SplitBuffer(limit: 4)
                try header.append(UInt32(count), .bigEndian)
                stream += try Streams.encode([contents(header)], Prefix(.two))
                let bytes = (0..<count).map { UInt8($0 & 255) }
                stream += bytes
                sums.append(bytes.reduce(0) { $0 + Int($1) })
            }
            try client.send(stream)
            try client.socket.shutDownSending()
            let heard = Streams.read(try client.receive(), cuts: [], FrameReader(Prefix(.two)))
            let told = try heard.messages.map {
                Int(try $0.span.bytes.integer(UInt32.self, at: 0, .bigEndian))
            }
            facts.expect(told == sums && heard.error == nil)
            facts.expect(server.stop())
        }
    }

    @Test(
        "A handler that closes gets no more, one that finishes sends what it has",
        arguments: DriverKind.permitted)
    func closing(driver: DriverKind) async throws {
        try await onAThread { facts in
            let seen = Counter()
            let server = try FramedService(Lines(), options: .on(driver))
            let address = try server.listen { Leaver(seen: seen) }
            let client = try Client(to: address)
            try client.send(Array("a\nfinish\nb\nclose\nc\nd\n".utf8))
            // `b` is delivered, its answer is not sent any more; `c` and `d` are not delivered.
            let heard = (try? client.receive()) ?? []
            facts.expect(String(decoding: heard, as: UTF8.self) == "a\nfinish\n")
            facts.expect(eventually { server.hub.counters.alive == 0 } && seen.value == 4)
            facts.expect(server.stop())
        }
    }

    @Test(
        "Messages are sent from other threads, each whole, and a token tells when one has left",
        arguments: DriverKind.permitted)
    func fromAnywhere(driver: DriverKind) async throws {
        try await onAThread { facts in
            let talker = Talker()
            let server = try FramedService(Lines(), options: .on(driver, workers: 2))
            let address = try server.listen { talker }
            let client = try Client(to: address)
            facts.expect(talker.isOpen.pass())
            inThreads(4) { thread in
                for number in 0..<10 { talker.say("thread \(thread) says \(number)", token: thread) }
            }
            let lines = String(decoding: try client.receive(4 * 10 * 16), as: UTF8.self).split(
                separator: "\n")
            facts.expect(Set(lines.map(String.init)).count == 40)
            for thread in 0..<4 {
                let own = lines.filter { $0.hasPrefix("thread \(thread)") }
                facts.expect(own.map { $0.last! } == Array("0123456789"))
            }
            facts.expect(eventually { talker.sent.value == 40 })
            facts.expect(server.stop())
        }
    }

    // I6.3
    @Test("After an error a client is not read from for ever", arguments: DriverKind.permitted)
    func discards(driver: DriverKind) async throws {
        try await onAThread { facts in
            let server = try FramedService(Prefix(.four), options: .on(driver))
            let address = try server.listen { FramedEcho() }
            let client = try Client(to: address)
            let flood = [UInt8](repeating: 0xFF, count: 1 << 16)
            var sent = 0
            // The server closes: sooner or later a send fails.
            while sent < 64 << 20, (try? client.send(flood)) != nil { sent += flood.count }
            facts.expect(sent < 64 << 20)
            facts.expect(eventually { server.hub.counters.alive == 0 })
            facts.expect(server.stop() && server.ledger.malformed == 1)
        }
    }

    // I6.4
    @Test(
        "After an error a client that neither closes nor sends is closed in time, and nobody else",
        arguments: DriverKind.permitted)
    func sweeps(driver: DriverKind) async throws {
        try await onAThread { facts in
            let patience = Duration.milliseconds(100)
            let server = try FramedService(
                Lines(maximumLength: 100), options: .on(driver), patience: patience
            )
            let address = try server.listen { FramedEcho(tellsErrors: true) }
            let silent = try Client(to: address)
            try silent.send(Array("one\n".utf8))
            facts.expect(try silent.receive(4).count == 4)
            let client = try Client(to: address)
            let start = ContinuousClock.now
            try client.send([UInt8](repeating: 0x78, count: 150))
            // It hears the last word and that no more is sent, and stays.
            let heard = String(decoding: try client.receive(), as: UTF8.self)
            facts.expect(heard == "error: offset 100: no end of line within 100 bytes\n")
            facts.expect(eventually { server.hub.counters.alive == 1 })
            facts.expect(ContinuousClock.now - start >= patience)
            try silent.send(Array("two\n".utf8))
            facts.expect(try silent.receive(4).count == 4)
            facts.expect(server.stop() && server.ledger.malformed == 1)
        }
    }

    @Test(
        "An address that is taken, and frames that need too much, are refused, and nothing is left",
        arguments: DriverKind.permitted)
    func refused(driver: DriverKind) async throws {
        try await onAThread { facts in
            let server = try FramedService(Lines(), options: .on(driver))
            let address = try server.listen { FramedEcho() }
            let taken = Result { () throws(SystemError) in
                try server.listen(on: address) { FramedEcho() }
            }
            let tooLong = Result { () throws(SystemError) in
                try FramedService(Prefix(.four, maximumLength: .max), options: .on(driver))
            }
            let longLines = Result { () throws(SystemError) in
                try FramedService(Lines(maximumLength: .max), options: .on(driver))
            }
            let impatient = Result { () throws(SystemError) in
                try FramedService(Lines(), options: .on(driver), patience: .zero)
            }
            for result in [
                taken.map { _ in () }, impatient.map { _ in () }, tooLong.map { _ in () },
                longLines.map { _ in () },
            ] {
                guard case .failure = result else {
                    facts.expect(false)
                    continue
                }
            }
            facts.expect(server.stop())
        }
    }
}

/// Looks at numbers: each is one more than the last, and nobody else looks meanwhile.
private final class InOrder: FrameHandler {
    typealias Codec = LengthPrefixed
    private let inside = Atomic<Int>(0)
    private let last = Atomic<Int>(-1)
    private let worst: Counter
    private let wrong: Counter

    init(worst: Counter, wrong: Counter) {
        self.worst = worst
        self.wrong = wrong
    }

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        if inside.add(1, ordering: .relaxed).oldValue != 0 { worst.add() }
        let number = (try? message.integer(UInt32.self, at: 0, .bigEndian)).map(Int.init) ?? -7
        if last.load(ordering: .relaxed) != number - 1 { wrong.add() }
        last.store(number, ordering: .relaxed)
        inside.subtract(1, ordering: .relaxed)
    }
}

/// A message says how many raw bytes follow; their sum is the answer. Chunks are kept for a while.
private final class RawCounter: FrameHandler, @unchecked Sendable {
    typealias Codec = LengthPrefixed
    // In the handler's calls only, one at a time.
    private var left = 0
    private var sum = 0
    private var kept: Chunk?

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        left = (try? message.integer(UInt32.self, at: 0, .bigEndian)).map(Int.init) ?? 0
        sum = 0
        connection.passThrough(left)
        if left == 0 { tell(connection) }
    }

    func passed(_ bytes: Range<Int>, of chunk: Chunk, on connection: FramedConnection<LengthPrefixed>) {
        kept?.giveBack()
        chunk.keep()
        kept = chunk
        sum += chunk.contents[bytes].reduce(0) { $0 + Int($1) }
        left -= bytes.count
        if left == 0 { tell(connection) }
    }

    private func tell(_ connection: FramedConnection<LengthPrefixed>) {
        var answer = SplitBuffer(limit: 4)
        try? answer.append(UInt32(sum), .bigEndian)
        answer.withBytes { try? connection.reply($0) }
    }

    func closed(_ connection: FramedConnection<LengthPrefixed>, _ reason: CloseReason) { kept?.giveBack() }
}

/// Does what it is told.
private final class Leaver: FrameHandler {
    typealias Codec = Lines
    private let seen: Counter

    init(seen: Counter) { self.seen = seen }

    func received(_ message: RawSpan, on connection: FramedConnection<Lines>) {
        seen.add()
        try? connection.reply(message)
        switch message.printable {
        case "finish": connection.finish()
        case "close": connection.close()
        default: break
        }
    }
}

/// Says what others want it to say.
private final class Talker: FrameHandler {
    typealias Codec = Lines
    let isOpen = Gate()
    let sent = Counter()
    private let connection = Guarded<FramedConnection<Lines>?>(nil)

    func opened(_ connection: FramedConnection<Lines>) {
        self.connection.locked { $0 = connection }
        isOpen.open()
    }

    // As long as somebody keeps it, it is not released.
    func closed(_ connection: FramedConnection<Lines>, _ reason: CloseReason) {
        self.connection.locked { $0 = nil }
    }

    func say(_ text: String, token: Int) {
        let bytes = Array(text.utf8)
        while let connection = connection.locked({ $0 }) {
            do throws(SystemError) {
                return try connection.send(bytes.span.bytes, token: token)
            } catch {
                if CloseReason(error) != .outOfResources { return }
            }
        }
    }

    func received(_ message: RawSpan, on connection: FramedConnection<Lines>) {}
    func sent(_ token: Int, on connection: FramedConnection<Lines>) { sent.add() }
}
