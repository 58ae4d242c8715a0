import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import Servers
import Stage
import WorkerPools

/// What the programs do with messages: give them back, show them to everybody, or, flooding, answer each answer again.
final class Talker: EndpointHandler {
    enum Kind: Sendable { case echo, show, client }
    private let kind: Kind
    private let switches: Console.Switches
    private let say: @Sendable (String) -> Void
    /// Set when it stands, for `show`.
    let endpoint = Guarded<Endpoint?>(nil)

    init(_ kind: Kind, _ switches: Console.Switches, say: @escaping @Sendable (String) -> Void) {
        (self.kind, self.switches, self.say) = (kind, switches, say)
    }

    func log(_ line: String) { say(line) }
    func received(_ message: RawSpan, _ session: Session) {
        switch kind {
        case .echo: try? session.reply(message)
        case .client:
            // What is flooded is only counted.
            if switches.flood.locked({ $0 }) {
                try? session.reply(message)
            } else {
                say("\(session.id) says \(message.printable)")
            }
        case .show:
            say("\(session.id) says \(message.printable)")
            _ = endpoint.locked { $0 }?.sendToAll(message, except: session.id)
        }
    }
    func fileFinished(_ result: TransferResult, _ session: Session) {
        switch result {
        case .success(let receipt): say("\(session.id) file \(receipt.name): \(receipt.bytes) bytes, whole")
        case .failure(let error): say("\(session.id) \(error)")
        }
    }
    func connectionLost(_ link: Link, _ reason: EndReason) { say("\(link.address): lost (\(reason))") }
    func reconnecting(_ link: Link, attempt: Int, after: Duration) {
        say("\(link.address): attempt \(attempt) in \(Int(after / .milliseconds(1))) ms")
    }
    func gaveUp(_ link: Link) { say("\(link.address): given up; connect tries again") }
}

/// What both programs choose alike.
private func choose(_ endpoint: inout EndpointOptions, _ options: Stage.Options) {
    if options.has(.driver) || endpoint.port.driver == nil { endpoint.port.driver = options.driver }
    if let workers = options.workers { endpoint.ioWorkers = workers }
    if let concurrency = options.concurrency { endpoint.concurrency = concurrency }
    endpoint.log = .information
    if let folder = options.value(folderOption) { endpoint.files = TransferOptions(folder: folder) }
}

/// `--serve PORT`: keeps the server up, for the chapter's client and, one port further, for lines from `nc`. Commands on standard
/// input. Until `quit`, Ctrl-C, SIGTERM, or `stop PORT` in another terminal.
func serve(_ configuration: Configuration, _ options: Stage.Options, on terminal: Terminal) throws {
    // Before there are threads: they inherit it.
    let interrupt = Interrupt()
    let messages = try MessageQueue { line in terminal.print(line) }
    let say: @Sendable (String) -> Void = { messages.say($0) }
    var choices = configuration.server
    choices.addresses = [options.listenAddress] + (configuration.listensBeside ? choices.addresses : [])
    choose(&choices.endpoint, options)
    let switches = Console.Switches()
    let page = Guarded<Watching?>(nil)
    let talker = Talker(options.value(handlerOption) == "show" ? .show : .echo, switches) { line in
        say(line)
        page.locked { $0 }?.note(line)
    }
    let server = Server(choices, handler: talker)
    talker.endpoint.locked { $0 = server }
    try server.start()
    let doors = Doors(
        server, page: options.number(watchOption).map { Address(options.address, port: UInt16($0))! }
    ) {
        watching in page.locked { $0 = watching }
    }
    try doors.open()
    let name = try options.value(pidFileOption).map { path throws(SystemError) in try PidFile(path) }
    defer { name?.remove() }
    do throws(SystemError) { try ServingName(port: server.address!.port).take() } catch {
        terminal.say("another terminal cannot stop it: \(error)")
    }
    terminal.say(
        "listening on \(server.addresses.dropLast(doors.count).map(\.description).joined(separator: ", "))")
    terminal.say("for lines (nc): \(doors.lines); commands: \(Console.serverHelp)")
    if let address = doors.page { terminal.say("for browsers: http://\(address)/") }
    try run(Console(server, switches, opens: { try doors.open() }, say: say), interrupt, options)
    talker.endpoint.locked { $0 = nil }
    page.locked { $0 = nil }
    let last = server.isStarted ? try server.stop() : server.statistics
    messages.stop()
    terminal.print(last.text + "\n")
    terminal.claim("everything is back", holds: last.isQuiet)
}

/// What a server listens at beside its own address: for people who type lines, and for browsers. Opened again after each start,
/// where it was before. Used by one thread at a time.
final class Doors: @unchecked Sendable {
    private let server: Server
    private let watched: (Watching) -> Void
    private(set) var lines: Address
    private(set) var page: Address?

    init(_ server: Server, page: Address?, watched: @escaping (Watching) -> Void) {
        (self.server, self.page, self.watched) = (server, page, watched)
        lines = server.address!
        lines.port = 0
    }

    var count: Int { page == nil ? 1 : 2 }

    func open() throws {
        lines = try server.listen(on: lines, codec: Lines())
        guard let place = page else { return }
        let watching = Watching(server, name: "11-server-and-client on \(server.address!)")
        page = try watching.start(on: place)
        watched(watching)
    }
}

/// The file by which other programs know this one: `kill $(cat FILE)`.
struct PidFile {
    private let path: String
    private var words: String { "\(getpid())\n" }

    /// Writes it. To be done when the ports are open: whoever finds it may connect.
    init(_ path: String) throws(SystemError) {
        self.path = path
        try writeFile(path, words)
    }

    /// Removes it, unless another program has written its own there meanwhile.
    func remove() {
        if let present = try? contents(of: path), present == words { unlink(path) }
    }
}

/// `client ADDRESS:PORT …`: a client of each server, which comes back; commands on standard input.
func runClient(
    _ words: [String], _ configuration: Configuration, _ options: Stage.Options, on terminal: Terminal
) throws {
    guard !words.isEmpty else {
        refuse("11-server-and-client: client of what? Name a server: client 127.0.0.1:4711")
    }
    // Before there are threads: they inherit it.
    let interrupt = Interrupt()
    let messages = try MessageQueue { line in terminal.print(line) }
    let say: @Sendable (String) -> Void = { messages.say($0) }
    var choices = ClientOptions()
    let handshake = choices.endpoint.limits.handshake
    choices.endpoint = configuration.server.endpoint
    // A server need not say anything.
    choices.endpoint.limits.handshake = handshake
    choices.link = configuration.link
    choices.servers = words.map { word in
        guard let address = parsedAddress(word) else {
            refuse("11-server-and-client: \(word) is no address with a port, such as 127.0.0.1:4711")
        }
        return address
    }
    choose(&choices.endpoint, options)
    let switches = Console.Switches()
    let client = Client(choices, handler: Talker(.client, switches, say: say))
    try client.start()
    terminal.say("commands: \(Console.clientHelp)")
    try run(Console(client, switches, say: say), interrupt, options)
    let last = client.isStarted ? try client.stop() : client.statistics
    messages.stop()
    terminal.claim("everything is back", holds: last.isQuiet)
}

/// Until the console or a signal ends it.
private func run(_ console: Console, _ interrupt: Interrupt, _ options: Stage.Options) throws {
    // Left behind if it is still reading at the end.
    _ = startThread("console") { console.read() }
    _ = startThread("signals") { if interrupt.wait() { console.isOver.open() } }
    let interval = options.number(statsOption)
    while !console.isOver.pass(within: .seconds(interval ?? 3_600)) {
        if interval != nil { try console.perform(["stats"]) }
    }
}
