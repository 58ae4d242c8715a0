import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import Stage
import Timeline

/// What is wrong with `127.0.0.1:80` and the like; nil when nothing is.
@Sendable func addressFault(_ value: String) -> String? {
    parsedAddress(value) == nil ? "is no address with a port, such as 127.0.0.1:4711 or [::1]:4711" : nil
}

/// The address behind `127.0.0.1:80` or `[::1]:80`.
func parsedAddress(_ value: String) -> Address? {
    guard let colon = value.lastIndex(of: ":"), let port = UInt16(value[value.index(after: colon)...]),
        port > 0
    else { return nil }
    var host = String(value[..<colon])
    if host.hasPrefix("[") && host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    return Address(host, port: port)
}

/// The choices of the command line.
func transferOptions(_ options: Stage.Options, folder: String? = nil) -> TransferOptions {
    var choices = TransferOptions(folder: folder)
    choices.replaces = options.has(replaceOption)
    choices.streams.workers = options.workers ?? 2
    choices.streams.concurrency = options.concurrency ?? 0
    choices.streams.port.driver = options.driver
    return choices
}

/// A receipt as a line.
func line(_ receipt: TransferReceipt) -> String {
    let seconds = receipt.duration / .seconds(1)
    let rate = readable(Double(receipt.bytes) / 1e6 / max(seconds, 1e-9))
    return
        "\(receipt.name): \(readable(receipt.bytes)) bytes in \(readable(receipt.duration)), \(rate) MB/s, "
        + "checksum \(hexadecimal(receipt.checksum))"
}

/// Sixteen digits.
func hexadecimal(_ number: UInt64) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}

/// `--serve PORT --folder DIR`: takes files and gives files until Ctrl-C or SIGTERM.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    guard let folder = options.value(folderOption) else {
        refuse("08-file-transfer: --serve needs --folder DIR")
    }
    let interrupt = Interrupt()
    let isRecorded = options.has(.svg) || options.has(.trace)
    if isRecorded { Recorder.start() }
    let (received, sent, failed) = (Counter(), Counter(), Counter())
    func report(_ verb: String, _ counter: Counter) -> @Sendable (FileTransfer, TransferResult) -> Void {
        { _, result in
            switch result {
            case .success(let receipt):
                counter.add()
                terminal.say("\(verb) \(line(receipt))")
            case .failure(let error):
                failed.add()
                terminal.say("not \(verb) \(error)")
            }
        }
    }
    var events = FileEvents()
    events.received = report("received", received)
    events.sent = report("sent", sent)
    let choices = transferOptions(options, folder: folder)
    let files = try FileService(choices, events: events)
    let service = try FramedService(TransferMessage.codec, options: choices.streams, round: files.round)
    // A message is repeated: that also tells a client that the server is alive.
    let address = try service.listen(on: options.listenAddress) { FileTransfer(files, around: FramedEcho()) }
    terminal.say("listening on \(address)")
    _ = interrupt.wait()
    let open = service.hub.connections.count
    let isClean = service.stop() && files.isIdle
    terminal.say(
        "files: \(received.value) received, \(sent.value) sent, \(failed.value) not; connections open at the end: \(open)"
    )
    if isRecorded {
        try options.save(
            Recorder.stop(), title: "The file server of chapter 08",
            description: "What the server's operations and workers did while it was up.")
    }
    terminal.claim("everything is given back", holds: isClean)
}

/// `send` and `get`: one connection, one file after the other. Exit status 1 when one of them did not go across.
func transfer(_ command: String, _ names: [String], _ options: Stage.Options, on terminal: Terminal) throws {
    let isSending = command == "send"
    guard !names.isEmpty else { refuse("08-file-transfer: \(command) what? Name a file behind it") }
    guard let text = options.value(isSending ? toOption : fromOption), let address = parsedAddress(text)
    else {
        refuse("08-file-transfer: \(command) needs --\(isSending ? "to" : "from") ADDRESS:PORT")
    }
    var choices = transferOptions(options, folder: isSending ? nil : options.value(folderOption) ?? ".")
    // What was named here goes across, and nothing else: the folder is not the server's to put files into, nor to read.
    choices.takesUnasked = false
    choices.answersQuestions = false
    // Connected here, so that the system's own words tell why it cannot be done.
    let socket = try Socket.connected(to: address)
    let interrupt = Interrupt()
    let files = try FileService(choices)
    let service = try FramedService(TransferMessage.codec, options: choices.streams, round: files.round)
    let transfer = FileTransfer(files)
    try service.adopt(socket, handler: transfer)
    // Ctrl-C ends the connection, and so the half file that has come is removed. Another one ends the program.
    _ = try Thread("interrupt") { if interrupt.wait() { transfer.connection?.close() } }
    var failures = 0
    for name in names {
        let bar = ProgressBar(terminal)
        do throws(TransferError) {
            let receipt =
                isSending
                ? try transfer.sendAndWait(name, progress: bar.show)
                : try transfer.fetch(name, progress: bar.show)
            bar.clear()
            terminal.say(line(receipt))
        } catch {
            bar.clear()
            complain("08-file-transfer: \(error)")
            failures += 1
        }
    }
    service.stop()
    if failures > 0 { exit(1) }
}

/// A line that is written again and again, on a terminal, until it is cleared.
private final class ProgressBar: Sendable {
    private let terminal: Terminal
    private let isCleared = Guarded(false)

    init(_ terminal: Terminal) { self.terminal = terminal }

    var show: @Sendable (TransferProgress) -> Void {
        { [terminal, isCleared] progress in
            let width = max(10, min(40, terminal.columns - 60))
            let share = progress.total > 0 ? Double(progress.bytes) / Double(progress.total) : 1
            let full = Int(share * Double(width))
            let bar = String(repeating: "█", count: full) + String(repeating: "░", count: width - full)
            let left = progress.timeLeft.map { ", \(readable($0)) left" } ?? ""
            let line =
                "\(progress.name.prefix(20)) \(bar) \(Int(share * 100)) %, "
                + "\(readable(progress.rate / 1e6)) MB/s\(left)"
            isCleared.locked { if !$0 { terminal.status(line) } }
        }
    }

    func clear() {
        isCleared.locked {
            $0 = true
            terminal.status(nil)
        }
    }
}
