import Contexts
import FileTransfer
import Glibc
import Kernel
import Servers
import ServersPitfalls
import Stage
import WorkerPools

/// The chapter's story: one server through its whole life, with everybody who may come.
func tellStory(_ options: Stage.Options, on terminal: Terminal) throws {
    let folder = try Folder()
    defer { folder.remove() }
    let story = Story(options, folder, terminal)
    try story.begin()
    try story.echoes(options.clients ?? 200)
    try story.strangers()
    try story.flood()
    try story.work()
    try story.files()
    try story.restart()
    try story.end()
}

/// The server, a client of the same kind, and what is shown of both.
final class Story {
    private let terminal: Terminal
    private let folder: Folder
    private let driver: DriverKind
    private let server: Server
    private let program = Program()
    private let clientProgram = Program()
    private var client: Client?
    private let echoed = Counter(), filesDone = Guarded<[TransferReceipt]>([]), wrong = Counter()

    init(_ options: Stage.Options, _ folder: Folder, _ terminal: Terminal) {
        (self.terminal, self.folder, driver) = (terminal, folder, options.driver)
        var choices = ServerOptions()
        choices.endpoint.port.driver = options.driver
        choices.endpoint.ioWorkers = options.workers ?? 2
        choices.endpoint.concurrency = options.concurrency ?? 0
        choices.endpoint.maximumPerAddress = 300
        choices.endpoint.refusal = .reset
        choices.endpoint.bans.add(AddressRange("127.0.0.3")!)
        choices.endpoint.files = folder.options("server")
        choices.endpoint.log = .none
        program.onReceived = { message, session in
            // A question for the logical workers, or something to be given back.
            if message.starts(with: Array("primes ".utf8)) {
                session.addJob(String(decoding: message, as: UTF8.self))
            } else if message.first == UInt8(ascii: "!") {
                try? session.send(message.span.bytes)
            } else {
                try? session.reply(message.span.bytes)
            }
        }
        program.onProcess = { job in
            let limit = Int(job.command.split(separator: " ").last ?? "") ?? 0
            return Array("\(primes(below: limit)) primes below \(limit)".utf8)
        }
        program.onConnected = { try? $0.socket?.setBufferSizes(send: 65_536) }
        let files = filesDone
        for program in [program, clientProgram] {
            program.onFile = { result in
                if case .success(let receipt) = result { files.locked { $0.append(receipt) } }
            }
        }
        server = Server(choices, handler: program)
    }

    func begin() throws {
        terminal.heading("One server, and everybody who may come")
        try server.start()
        terminal.explain(
            "It listens on \(server.address!), driver \(driver), with files, jobs and limits on. Every client says 10 "
                + "messages, and compares what it hears; they are one client program with a link for each.")
    }

    /// Many links of one client, while the server ends sessions by chance, and the client comes back.
    func echoes(_ count: Int) throws {
        let (echoed, wrong) = (echoed, wrong)
        clientProgram.onReceived = { message, session in
            // Each session has one question out, and knows which.
            guard let asked = session.context as? Int else { return }
            if message != Array("message \(asked)".utf8) { wrong.add() }
            echoed.add()
            ask(asked + 1, session)
        }
        clientProgram.onConnected = { session in ask(0, session) }
        var choices = ClientOptions()
        choices.endpoint.port.driver = driver
        choices.endpoint.files = folder.options("client")
        choices.endpoint.log = .none
        choices.link.reconnection?.first = .milliseconds(20)
        let client = Client(choices, handler: clientProgram)
        self.client = client
        try client.start()
        for _ in 0..<count { try client.connect(to: server.address!, choices.link) }
        _ = eventually { server.connectionCount == count && echoed.value >= count * 3 }
        // The server throws a quarter of them out, in both ways; their links come back and begin again.
        let thrownOut = server.sessions.enumerated().filter { $0.offset % 4 == 0 }
        for (index, session) in thrownOut {
            session.disconnect(index % 8 == 0 ? .abortive : .graceful(within: .seconds(1)))
        }
        let isDone = eventually(within: .seconds(20)) {
            client.statistics.reconnects >= thrownOut.count
                && client.links.allSatisfy { $0.session?.context as? Int == 10 }
        }
        let (there, here) = (server.statistics, client.statistics)
        terminal.table(
            ["", "connections", "made again", "messages in", "out", "thrown out"],
            [
                [
                    "server", "\(there.connections)", "", "\(there.messagesIn)", "\(there.messagesOut)",
                    "\(there.ends[.kicked] ?? 0)",
                ],
                [
                    "client", "\(here.connections)", "\(here.reconnects)", "\(here.messagesIn)",
                    "\(here.messagesOut)", "",
                ],
            ])
        terminal.claim(
            "every message came back, whatever happened to its connection", holds: isDone && wrong.value == 0)
    }

    func strangers() throws {
        terminal.heading("One address at its limit, and one that is banned")
        let guests = try (0..<300).map { _ in try PlainClient(to: server.address!, from: "127.0.0.2") }
        _ = eventually { server.connectionCount >= 300 + (client?.links.count ?? 0) }
        let one = try PlainClient(to: server.address!, from: "127.0.0.2")
        let words = try one.hearTagged()
        for guest in guests { try guest.socket.abort() }
        let banned = try PlainClient(to: server.address!, from: "127.0.0.3")
        let isReset = banned.socket.isEnded()
        terminal.say("the 301st of 127.0.0.2 hears \"\(words)\"; the banned one is reset: \(isReset)")
        let refused = server.statistics.refused
        terminal.claim(
            "both are counted by their reason",
            holds: refused[.perAddress] == 1 && refused[.banned] == 1 && isReset)
        _ = eventually { server.connectionCount == client?.links.count }
    }

    /// A client that sends and does not read is paused, and loses nothing.
    func flood() throws {
        terminal.heading("A client that sends, and does not read")
        let flooder = try PlainClient(to: server.address!)
        try flooder.socket.setBufferSizes(receive: 65_536)
        // The first byte says that it is the program's; the second asks for an answer of its own each.
        let frames = (0..<3_000).flatMap { _ in
            PlainClient.frame([0, UInt8(ascii: "!")] + [UInt8](repeating: 7, count: 2_000))
        }
        let writer = startThread("flood") { try? flooder.socket.say(frames, within: .seconds(20)) }
        let isPaused = eventually { server.statistics.paused == 1 }
        let held = server.statistics
        terminal.bar(
            "sends under way", Double(held.pendingSends), of: 64,
            figure: "\(held.pendingSends) (pauses at 20)")
        try flooder.socket.setBufferSizes(receive: 1 << 20)
        let back = try flooder.socket.hearBytes(frames.count, within: .seconds(20))
        writer.join()
        flooder.socket.close()
        terminal.say("\(back.count) of \(frames.count) bytes came back")
        terminal.claim("it was paused, and nothing was dropped", holds: isPaused && back == frames)
    }

    func work() throws {
        terminal.heading("A job, and a greeting that does not wait for it")
        let guest = try PlainClient(to: server.address!)
        let other = try PlainClient(to: server.address!)
        try guest.sayTagged("primes 200000")
        try other.sayTagged("hello")
        let hello = try other.hearTagged()
        let answer = try guest.hearTagged()
        terminal.say("\"\(hello)\" at once; then \"\(answer)\"")
        terminal.claim(
            "the answer is right", holds: hello == "hello" && answer == "17984 primes below 200000")
        guest.socket.close()
        other.socket.close()
    }

    func files() throws {
        terminal.heading("Two files each way, at once")
        guard let client else { return }
        let links = client.links.prefix(2).compactMap(\.session)
        for (number, session) in links.enumerated() {
            try session.sendFile(try folder.make("client", "up-\(number)", 3_000_000))
            _ = try folder.make("server", "down-\(number)", 2_000_000)
            try session.fetchFile("down-\(number)")
        }
        // Each is told on both sides.
        let isDone = eventually { filesDone.locked { $0.count } == 8 }
        let sums = filesDone.locked { receipts in
            Dictionary(grouping: receipts, by: \.name).mapValues { Set($0.map(\.checksum)) }
        }
        terminal.table(
            ["file", "bytes", "sums"],
            sums.keys.sorted().map { name in
                let receipt = filesDone.locked { $0.first { $0.name == name } }
                return [name, "\(receipt?.bytes ?? 0)", sums[name]!.count == 1 ? "equal" : "different"]
            })
        terminal.claim(
            "four files, and both sides have the same sums",
            holds: isDone && sums.count == 4 && sums.values.allSatisfy { $0.count == 1 })
    }

    /// Stopped while messages are under way, and started again: its clients come back by themselves.
    func restart() throws {
        terminal.heading("Stop under load, and start again")
        guard let client else { return }
        let address = server.address!
        for session in client.sessions { ask(0, session) }
        let first = try server.stop(within: .milliseconds(200))
        terminal.say(
            "stopped; ends: \(first.ends.map { "\($0.key) \($0.value)" }.sorted().joined(separator: ", "))")
        terminal.claim(
            "nothing is left of it: connections, sends, buffers, pages, jobs, threads", holds: first.isQuiet)
        try server.start()
        _ = try server.listen(on: address, codec: server.codec)
        let isBack = eventually(within: .seconds(20)) { server.connectionCount == client.links.count }
        terminal.say("started again; \(server.connectionCount) of \(client.links.count) links are back")
        terminal.claim("its clients come back by themselves", holds: isBack)
    }

    func end() throws {
        let here = try client?.stop(within: .milliseconds(200))
        let there = try server.stop(within: .milliseconds(200))
        let isReleased = eventually {
            program.made.value == program.released.value
                && clientProgram.made.value == clientProgram.released.value
        }
        terminal.claim(
            "at the end every counter of both is zero, and every session is released",
            holds: here?.isQuiet == true && there.isQuiet && isReleased)
    }
}

/// The next question of a session, up to ten.
private func ask(_ number: Int, _ session: Session) {
    session.context = number
    guard number < 10 else { return }
    try? session.send("message \(number)")
}

extension PlainClient {
    /// Where files are on, a byte in front says that a message is the program's.
    func sayTagged(_ text: String) throws(SystemError) {
        try socket.say(PlainClient.frame([0] + Array(text.utf8)))
    }

    func hearTagged() throws(SystemError) -> String { String((hear() ?? "").dropFirst()) }
}

/// How many prime numbers there are below `limit`: by trying, so that it takes its time.
func primes(below limit: Int) -> Int {
    var count = limit > 2 ? 1 : 0
    for candidate in stride(from: 3, to: limit, by: 2) {
        var divisor = 3
        while divisor * divisor <= candidate, candidate % divisor != 0 { divisor += 2 }
        if divisor * divisor > candidate { count += 1 }
    }
    return count
}
