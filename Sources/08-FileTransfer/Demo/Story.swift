import Contexts
import FileTransfer
import FileTransferPitfalls
import Glibc
import Kernel
import Reordering
import Stage
import Timeline

/// Another part of the program sends something while a file is on its way.
func playBroken(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Broken: every part sends when it has something to send")
    let seen = try SendDuringFileTransfer.pitfall.broken(options.driver)
    for line in seen.lines { terminal.say("  " + line) }
    terminal.claim("the file is corrupt, and no call has failed", holds: seen.happened)
}

/// Both directions at once, with messages in between.
func playRight(_ options: Stage.Options, on terminal: Terminal) throws {
    let size = 8 << 20
    terminal.heading("Right: announced, agreed to, sent in pieces, kept when whole")
    let (there, here) = (try ScratchFolder(), try ScratchFolder())
    for name in ["up-1", "up-2"] { try here.make(name, bytes: size, seed: 1) }
    for name in ["down-1", "down-2"] { try there.make(name, bytes: size, seed: 2) }
    let (heard, words) = (Counter(), 20)
    var choices = transferOptions(options, folder: there.path)
    let server = try FileSide(choices) { _, _ in heard.add() }
    choices.folder = here.path
    let client = try FileSide(choices)
    let connection = try client.connect(to: try server.listen()).waitUntilOpen()

    // Two files up, two files down, over one connection; and messages now and then.
    let outcomes = (0..<4).map { _ in Outcome() }
    for index in 0..<2 {
        try connection.send(file: here.path(of: "up-\(index + 1)"), outcomes[index].observer)
        try connection.ask(for: "down-\(index + 1)", outcomes[2 + index].observer)
    }
    var before = 0
    for number in 0..<words {
        try connection.say(Array("how are you?".utf8))
        usleep(1_000)
        if number == words - 1, !outcomes.allSatisfy(\.hasEnded) { before = heard.value }
    }
    let receipts = outcomes.compactMap { try? $0.wait()?.get() }
    terminal.table(
        ["file", "bytes", "ms", "MB/s", "checksum"],
        receipts.map { receipt in
            let seconds = receipt.duration / .seconds(1)
            return [
                receipt.name, readable(receipt.bytes), readable(seconds * 1e3),
                readable(Double(receipt.bytes) / 1e6 / seconds), hexadecimal(receipt.checksum),
            ]
        })
    let isHeard = eventually { heard.value == words }
    terminal.say(
        "\(heard.value) messages came, \(before) of them before the last file. driver: \(server.port.driverKind)"
    )
    let isWhole =
        receipts.count == 4 && there.contents("up-1") == here.contents("up-1")
        && there.contents("up-2") == here.contents("up-2")
        && here.contents("down-1") == there.contents("down-1")
        && here.contents("down-2") == there.contents("down-2")
    terminal.claim("four files over one connection, two each way: every byte as it was sent", holds: isWhole)
    terminal.claim("every message came, and none of them into a file", holds: isHeard && isWhole)
    terminal.claim("every chunk, write and descriptor is given back", holds: client.stop() && server.stop())
}

/// Everything that can be wrong with a file, and what each side says.
func playRefusals(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("What can be wrong, and what each side hears")
    let stand = try Stand(options.driver) {
        $0.maximumFileSize = 1 << 20
        $0.limits = TransferLimits(stall: .milliseconds(500))
    }
    let client = try stand.client()
    var rows: [[String]] = []
    func row(_ what: String, _ sender: TransferFailure?) {
        let receiver = eventually { stand.received.count > rows.count }
        rows.append([
            what, sender?.rawValue ?? "whole",
            receiver ? stand.received[rows.count].failure?.rawValue ?? "whole" : "nothing",
        ])
    }
    func send(_ path: String) -> TransferFailure? {
        do throws(TransferError) { try client.connection.sendAndWait(path) } catch { return error.failure }
        return nil
    }
    row("an ordinary file", send(try stand.home.make("ordinary", bytes: 100_000)))
    row("the same name again", send(stand.home.path(of: "ordinary")))
    row("2 MB where 1 MiB is the limit", send(try stand.home.make("large", bytes: 2_000_000)))
    // From here on a sender that can say anything.
    func scripted(_ what: String, _ name: String, size: UInt64, _ body: (ScriptedPeer) throws -> Void) throws
    {
        let peer = try ScriptedPeer(to: stand.address)
        try peer.say(TransferMessage(.announce, 1, value: size, text: name.utf8))
        var answer = try peer.hear()
        if answer?.kind == .agree {
            try body(peer)
            answer = peer.socket.descriptor < 0 ? nil : try peer.hear()
        }
        row(what, answer.map { $0.kind == .refuse ? $0.reason : .nonsense } ?? .disconnected)
    }
    let piece = ScratchFolder.pattern(1_000)
    func push(_ peer: ScriptedPeer, _ count: Int) throws {
        try peer.say(TransferMessage(.piece, 1, count: UInt32(count)))
        try peer.send(Array(piece[..<count]))
    }
    try scripted("a file named ../../etc/passwd", "../../etc/passwd", size: 1) { _ in }
    try scripted("more bytes than announced", "more", size: 500) { try push($0, 1_000) }
    try scripted("one bit flipped on the way", "flipped", size: 1_000) {
        try push($0, 1_000)
        try $0.say(TransferMessage(.complete, 1, value: piece.sum ^ 1))
    }
    try scripted("a sender that stops", "stops", size: 1_000) { try push($0, 400) }
    try scripted("a sender that is gone", "gone", size: 1_000) {
        try push($0, 400)
        $0.socket.close()
    }
    terminal.table(
        ["what", "the sender hears", "the receiver hears"],
        rows.map { [$0[0], $0[1], $0[1] == $0[2] ? "the same" : $0[2]] })
    let names = eventually { stand.folder.names == ["ordinary"] } ? ["ordinary"] : stand.folder.names
    terminal.say("in the folder: \(names.joined(separator: ", "))")
    terminal.claim(
        "each has its own reason, the same on both sides, and nothing is left of those that failed",
        holds: names == ["ordinary"] && rows.count == 8 && rows.allSatisfy { $0[1] == $0[2] })
    terminal.claim(
        "the first connection serves on", holds: send(try stand.home.make("last", bytes: 10)) == nil)
    terminal.claim("everything is given back", holds: client.stop() && stand.server.stop())
}

/// One small file, drawn: a row for each operation, those of the sender first. Each side has one worker, named after it.
func showSteps(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("One file of three pieces, drawn")
    let (there, here) = (try ScratchFolder(), try ScratchFolder())
    // Reads that are pending before the recording begins are in it, too: their numbers are kept for it.
    let reads = Guarded<[UInt: SequenceNumber]>([:])
    func side(_ name: String, _ folder: ScratchFolder) throws -> FileSide {
        var choices = Stand.options(options.driver, folder: folder.path)
        choices.streams.workers = 1
        choices.streams.workerName = name
        choices.streams.chunkCapacity = 32 << 10
        choices.streams.pendingReads = 2
        var probe = StreamProbe()
        probe.numbered = { chunk in reads.locked { $0[chunk.identity] = chunk.number } }
        choices.streams.probe = probe
        return try FileSide(choices)
    }
    let (sender, receiver) = (try side("sender", here), try side("receiver", there))
    let connection = try sender.connect(to: try receiver.listen())
    // So that what is drawn is the file, and not the connecting.
    try connection.sendAndWait(try here.make("first", bytes: 1))
    let path = try here.make("a", bytes: 40_000)
    Recorder.start()
    for (chunk, number) in reads.locked({ $0 }) { Recorder.label(chunk, "read \(number)") }
    let receipt = try connection.sendAndWait(path)
    let recording = bySide(Recorder.stop())
    terminal.draw(recording)
    terminal.claim(
        "the file has come", holds: receipt.bytes == 40_000 && there.contents("a") == here.contents("a"))
    let isClean = [sender, receiver].map { $0.stop() }
    terminal.claim("everything is given back", holds: isClean == [true, true])
    try options.save(
        recording, title: "A file of three pieces",
        description:
            "The sender's transmits follow each other, its reads for the sum run ahead; the receiver writes."
    )
}

/// Each operation is called after the side whose worker has to do with it, and what nothing came of is left out.
private func bySide(_ recording: Recording) -> Recording {
    let names = recording.lanes.map { lane in
        lane.name == "main" ? "sender" : String(lane.name.prefix { $0 != " " })
    }
    var sides: [UInt: String] = [:]
    var first: [Recording.Record] = []
    for life in recording.lives {
        guard let worker = life.worker, sides[life.operation] == nil else { continue }
        sides[life.operation] = names[worker]
        // One that was posted before the recording began has no label yet.
        let name = life.label.hasPrefix("send") ? "send" : life.label
        first.append(
            Recording.Record(
                nanoseconds: 0, lane: life.poster, operation: life.operation,
                what: .label("\(names[worker]): \(name)")))
    }
    var ends: [UInt: Int] = [:]
    for (number, record) in recording.records.enumerated() {
        if case .moment(.handled) = record.what { ends[record.operation] = number }
    }
    let rest = recording.records.enumerated().compactMap { number, record -> Recording.Record? in
        guard record.operation != 0 else { return record }
        guard let side = sides[record.operation], number <= ends[record.operation] ?? -1 else { return nil }
        var record = record
        if case .label(let text) = record.what {
            record.what = .label("\(side): \(text.replacing(" at ", with: " "))")
        }
        return record
    }
    return Recording(records: first + rest, lanes: recording.lanes, dropped: recording.dropped)
}
