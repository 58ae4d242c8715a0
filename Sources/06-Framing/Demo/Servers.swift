import Contexts
import Framing
import FramingPitfalls
import Glibc
import Kernel
import Reordering
import Stage
import Timeline

private func hubOptions(_ options: Stage.Options, reads: Int = 2) -> StreamHub.Options {
    var choices = StreamHub.Options()
    choices.workers = options.workers ?? 2
    choices.concurrency = options.concurrency ?? 0
    choices.pendingReads = reads
    choices.port.driver = options.driver
    choices.port.pollBeforeSleep = options.poll
    return choices
}

/// `--serve`: gives lines back to a client such as `nc`, or frames to another program, until Ctrl-C or SIGTERM.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    switch options.value(frames) ?? "lines" {
    case "u32be": try serve(LengthPrefixed(.four, .bigEndian, maximumLength: 1 << 20), options, on: terminal)
    case "u32le":
        try serve(LengthPrefixed(.four, .littleEndian, maximumLength: 1 << 20), options, on: terminal)
    default: try serve(Lines(maximumLength: 1024), options, on: terminal)
    }
}

private func serve(_ codec: some FrameCodec, _ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    if options.has(.svg) || options.has(.trace) { Recorder.start() }
    var choices = hubOptions(options)
    // The handler posts an answer and returns: so a worker may take several packets at a time, and hand over what it has
    // posted when it has handled them.
    choices.batch = 16
    choices.port.submission = .afterBatch
    // Messages of 4 KiB are common. With its header such a one would need two reads, and its answer two sends.
    choices.chunkCapacity = 16 << 10
    let server = try FramedService(codec, options: choices)
    let address = try server.listen(on: options.listenAddress) { FramedEcho(tellsErrors: true) }
    terminal.say("listening on \(address)")
    _ = interrupt.wait()
    let isClean = server.stop()
    if Recorder.isRecording {
        try options.save(
            Recorder.stop(), title: "The line server of chapter 06",
            description: "What the server's operations and workers did while it was up.")
    }
    let ledger = server.ledger
    terminal.say(
        "\(readable(server.hub.counters.opened)) connections; \(readable(ledger.messages)) messages, "
            + "\(readable(ledger.joined)) of them in several pieces; \(ledger.malformed) too long, "
            + "\(ledger.cutShort) without an end")
    terminal.claim("every chunk is back", holds: isClean && server.hub.counters.chunks.inUse == 0)
}

/// Clients that cut what they send wherever the dice fall; two workers.
func playServer(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("A framed server, two workers, clients that cut at random")
    let codec = LengthPrefixed(.two, .bigEndian, maximumLength: 300)
    let together = Counter()
    var choices = hubOptions(options, reads: 4)
    choices.chunkCapacity = 128
    choices.maximumReadSize = 128
    let server = try FramedService(codec, options: choices)
    let address = try server.listen { OneAtATime(together: together) }
    let clients = 4
    let wrong = Counter()
    Recorder.start()
    inThreads(clients, named: "client") { number in
        Recorder.nameThread("client \(number + 1)")
        var dice = Dice(seed: UInt64(number + 1))
        let messages = (0..<30).map { _ in (0..<dice.roll(200)).map { _ in UInt8(dice.roll(256)) } }
        do {
            let stream = try Streams.encode(messages, codec)
            let client = try Client(to: address)
            var place = 0
            while place < stream.count {
                let end = min(stream.count, place + 1 + dice.roll(400))
                try client.send(Array(stream[place..<end]))
                place = end
            }
            if try client.receive(stream.count) != stream { wrong.add() }
            client.socket.close()
        } catch {
            wrong.add()
        }
    }
    let isClean = server.stop()
    let recording = Recorder.stop()
    terminal.draw(recording)
    if let path = options.value(.trace) { try writeFile(path, recording.trace(process: "06-framing")) }
    let ledger = server.ledger
    terminal.say(
        "\(ledger.messages) messages, \(ledger.joined) of them put together from several chunks")
    terminal.claim(
        "all \(clients * 30) messages came back, each client's in order",
        holds: wrong.value == 0 && ledger.messages == clients * 30)
    terminal.claim("never two of one connection at a time", holds: together.value == 0)
    terminal.claim("every chunk is back", holds: isClean)
}

/// An echo that counts how often another worker is at the same connection.
private final class OneAtATime: FrameHandler {
    private let inside = Counter()
    private let together: Counter

    init(together: Counter) { self.together = together }

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        if inside.add() > 1 { together.add() }
        try? connection.reply(message)
        inside.add(-1)
    }
}

/// An answer for each message by itself.
private final class OneByOne: FrameHandler {
    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        try? connection.reply(message)
        connection.flush()
    }
}

/// What it is worth to answer all messages of a chunk with one send.
func showAnswers(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Eight questions in one chunk: eight answers, or one send with all of them")
    func rate(_ handler: @escaping @Sendable () -> any FrameHandler<LengthPrefixed>) throws -> Double {
        var choices = hubOptions(options, reads: 1)
        choices.workers = options.workers ?? 1
        let server = try FramedService(
            LengthPrefixed(.four, .bigEndian), options: choices)
        let address = try server.listen(handler: handler)
        defer { server.stop() }
        var load = ClientLoad(
            to: address, connections: 16, messageSize: 8 * 64, duration: .milliseconds(600))
        load.framesEach = 8
        return try load.run().perSecond * 8
    }
    var (single, collected) = (0.0, 0.0)
    // What another program has spoilt is measured again, four times at most.
    for _ in 0..<5 where collected <= single {
        single = try rate { OneByOne() }
        collected = try rate { FramedEcho() }
    }
    terminal.bar("a send for each", single, of: collected, figure: "\(readable(single)) messages/s")
    terminal.bar("one send for all", collected, of: collected, figure: "\(readable(collected)) messages/s")
    terminal.claim("together they are faster", holds: collected > single)
}
