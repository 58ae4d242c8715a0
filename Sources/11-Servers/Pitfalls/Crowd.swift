import CKernel
import Contexts
import FileTransfer
import Glibc
import Kernel
import Reordering
import Servers
import Stage
import WorkerPools

/// Everything that a server has to bear, at once and at random moments.
///
/// Clients say something and compare what comes back, an echo or a job's answer; they leave in the middle of a message, with a
/// reset, in order, and come again. The links of a client program send numbered messages, come back by themselves, and carry
/// files both ways. Some send and do not read. And all the while the server ends sessions by chance.
public enum Crowd {
    /// What has been done, and what was wrong with it.
    public struct Report: Sendable, CustomStringConvertible {
        /// Clients that were let in, those that came again included; links that came back by themselves.
        public fileprivate(set) var came = 0, reconnects = 0
        /// Answers that were compared.
        public fileprivate(set) var answers = 0
        /// Numbered messages, each of them handed over once; how many came twice.
        public fileprivate(set) var numbered = 0, repeated = 0
        /// Whole files to the server and from it; files that were cut off with their connection.
        public fileprivate(set) var files = (up: 0, down: 0, cut: 0)
        /// Clients that sent and did not read; how often a session was paused.
        public fileprivate(set) var floods = 0, pauses = 0
        /// In words; empty when all is well.
        public fileprivate(set) var faults: [String] = []

        /// One line.
        public var description: String {
            "\(readable(came)) clients came and \(readable(reconnects)) links came back; \(readable(answers)) answers, "
                + "\(readable(numbered)) numbered messages, \(readable(repeated)) of them sent twice; \(readable(files.up)) files "
                + "up, \(readable(files.down)) down, \(readable(files.cut)) cut off; \(readable(floods)) floods, "
                + "\(readable(pauses)) pauses; "
                + (faults.isEmpty ? "no byte is wrong, and nothing is left" : "WRONG")
        }
    }

    private static let threads = 8
    static let patience = Duration.seconds(20)

    /// Runs it for some time, ends it, and looks whether everything is back: connections, sends, chunks, pages, jobs, files,
    /// sessions, threads, descriptors. To be run in a process of which nothing else opens or closes anything meanwhile.
    ///
    /// - Parameter count: Clients that are there at a time.
    public static func run(_ driver: DriverKind, clients count: Int = 1_000, for time: Duration) throws
        -> Report
    {
        let before = (descriptors: Resources.openDescriptors, threads: Resources.threads)
        let faults = Faults()
        let folder = try Folder()
        defer { folder.remove() }
        let host = Host(faults)
        let links = max(4, count / 25)
        let server = try startServer(driver, host) {
            $0.endpoint.files = folder.options("server")
            $0.endpoint.acknowledges = true
            $0.endpoint.log = .none
            $0.endpoint.logicalWorkers = 2
        }
        let chance = try Chance(server, mean: .seconds(2), seed: 11)
        let program = LinkProgram()
        var choices = ClientOptions()
        choices.servers = Array(repeating: server.address!, count: links)
        choices.endpoint.port.driver = driver
        choices.endpoint.files = folder.options("client")
        choices.endpoint.acknowledges = true
        choices.endpoint.log = .none
        choices.link.reconnection?.first = .milliseconds(5)
        choices.link.reconnection?.longest = .milliseconds(50)
        let client = Client(choices, handler: program)
        try client.start()

        let end = Deadline.after(time)
        let (answers, floods) = (Counter(), Counter())
        let (up, down, cut) = (Counter(), Counter(), Counter())
        let numbers = Numbers(client, program, faults)
        let files = try Files(client, program, folder, faults, cut)
        var busy = (0..<threads).map { number in
            startThread("guests \(number)") {
                let share = (count - links) / threads
                var guests = Guests(server.address!, share, seed: UInt64(number) &+ 1, faults)
                repeat { answers.add(guests.turn()) } while !end.hasPassed
                guests.leave()
            }
        }
        busy.append(startThread("numbers") { repeat { numbers.send() } while !end.hasPassed })
        busy.append(startThread("up") { repeat { if files.up() { up.add() } } while !end.hasPassed })
        busy.append(startThread("down") { repeat { if files.down() { down.add() } } while !end.hasPassed })
        busy.append(
            startThread("flood") {
                // Chance may throw the first ones out before they are felt.
                for number in 0... {
                    if flood(server, faults, number % 2 == 0) { floods.add() }
                    if end.hasPassed, number >= 20 || server.statistics.pauses > 0 { return }
                }
            })
        for thread in busy { thread.join() }

        // What is not acknowledged is sent again, over however many connections.
        if !eventually(within: patience, { numbers.isAllAcknowledged }) {
            faults.note("a numbered message is not acknowledged")
        }
        for what in host.wrongNumbers(numbers.sent) { faults.note(what) }
        let here = try client.stop(within: .seconds(5))
        let there = try server.stop(within: .seconds(5))
        chance.stop()
        if !here.isQuiet { faults.note("something is left of the client: \(here)") }
        if !there.isQuiet { faults.note("something is left of the server: \(there)") }
        if !eventually({ host.alive.value == 0 && program.alive.value == 0 }) {
            faults.note("\(host.alive.value) and \(program.alive.value) sessions are not released")
        }
        // Of a file that was cut off the receiver may have had all, and only its word was lost. Then it is whole.
        for name in folder.names("server") where name.hasPrefix("up-") {
            if !folder.takes("server", name, files.upward) { faults.note("a part of \(name) is left") }
        }
        if folder.names("server") != ["down"] || folder.names("client") != ["up"] {
            faults.note("left over: \(folder.names("server")), \(folder.names("client"))")
        }
        let isBack = eventually {
            Resources.openDescriptors <= before.descriptors && Resources.threads <= before.threads
        }
        if !isBack {
            faults.note(
                "descriptors: \(before.descriptors) before, \(Resources.openDescriptors) after; threads: "
                    + "\(before.threads) before, \(Resources.threads) after")
        }
        var report = Report()
        (report.came, report.reconnects, report.answers) = (there.accepted, here.reconnects, answers.value)
        (report.numbered, report.repeated) = (numbers.count, there.repeated)
        report.files = (up.value, down.value, cut.value)
        (report.floods, report.pauses) = (floods.value, there.pauses)
        report.faults = faults.all
        return report
    }

    /// A client that sends a megabyte and does not read until its sender is held back. Whether all of it came back, then. One that
    /// is not patient leaves at that moment.
    private static func flood(_ server: Server, _ faults: Faults, _ isPatient: Bool) -> Bool {
        guard let flooder = try? PlainClient(to: server.address!) else { return false }
        defer { try? flooder.socket.abort() }
        try? flooder.socket.setBufferSizes(receive: 65_536)
        let frames = (0..<600).flatMap { number in
            Word.flood.framed(Array(repeating: UInt8(truncatingIfNeeded: number), count: 2_000))
        }
        let writer = startThread("writer") { try? flooder.socket.say(frames, within: patience) }
        // Until it is held back, or thrown out by chance: then the end may wait behind what it does not read.
        _ = eventually(within: .seconds(2)) {
            server.statistics.paused > 0
                || flooder.socket.waits(for: Int32(EPOLLRDHUP.rawValue), until: .after(.zero))
        }
        let back = isPatient && faults.hear(frames, on: flooder.socket)
        // A writer that is held back is let go.
        if !back { _ = shutdown(flooder.socket.descriptor, Int32(SHUT_RDWR)) }
        writer.join()
        return back
    }
}

/// What is said to the server: the first byte of a message says what is to become of it.
private enum Word: UInt8 {
    case echo = 101, job, flood, number

    /// The message on the wire: behind its length and the byte that says that it is the program's.
    func framed(_ rest: [UInt8]) -> [UInt8] { PlainClient.frame([0, rawValue] + rest) }

    /// What a job answers.
    static func answer(_ question: [UInt8]) -> [UInt8] { question.reversed() }
}

/// What was wrong: the first ten of it.
private final class Faults: Sendable {
    private let words = Guarded<[String]>([])

    func note(_ what: String) { words.locked { if $0.count < 10 { $0.append(what) } } }
    var all: [String] { words.locked { $0 } }

    /// Hears what was awaited, byte by byte. False when the server has ended the connection before: then what came is the
    /// beginning of it.
    func hear(_ wanted: [UInt8], on socket: Socket) -> Bool {
        var heard: [UInt8] = []
        var isOver = false
        do throws(SystemError) { heard = try socket.hearBytes(wanted.count, within: Crowd.patience) } catch {
            isOver = true
        }
        if heard[...] != wanted[..<heard.count] { note("wrong bytes came back") }
        if heard.count == wanted.count { return true }
        if !isOver, !socket.isEnded(within: .zero) { note("an answer did not come") }
        return false
    }
}

/// The server's program.
private final class Host: EndpointHandler {
    let alive = Counter()
    private let faults: Faults
    /// The numbers that were handed over, of each link.
    private let numbers = Guarded<[UInt8: [Int]]>([:])

    init(_ faults: Faults) { self.faults = faults }

    func made(_ session: Session) { alive.add() }
    func released(_ id: ConnectionID) { alive.add(-1) }
    // The system is to hold little back, so that a flood is felt.
    func connected(_ session: Session) { try? session.socket?.setBufferSizes(send: 65_536) }

    func received(_ message: RawSpan, _ session: Session) {
        let bytes = message.withUnsafeBytes { Array($0) }
        switch bytes.first.flatMap(Word.init) {
        case .echo: try? session.reply(message)
        case .job: session.addJob("answer", bytes)
        case .flood:
            do throws(SystemError) { try session.send(message) } catch {
                if error.code == ENOBUFS { faults.note("an answer to a flood was dropped") }
            }
        case .number:
            let number = bytes[2...].reduce(0) { $0 << 8 | Int($1) }
            numbers.locked { $0[bytes[1], default: []].append(number) }
        case nil: faults.note("a message that nobody has said came")
        }
    }

    func process(_ job: Job) -> [UInt8]? { Word.answer(job.data) }

    /// Each was handed over once, whatever happened to its connection.
    func wrongNumbers(_ sent: [Int]) -> [String] {
        let heard = numbers.locked { $0 }
        return sent.enumerated().compactMap { link, count in
            let all = heard[UInt8(link), default: []].sorted()
            return all == Array(0..<count)
                ? nil : "link \(link): \(count) were sent, \(all.count) handed over"
        }
    }
}

/// The client's program.
private final class LinkProgram: EndpointHandler {
    let alive = Counter(), acknowledgements = Counter()
    private let files = Guarded<[String: TransferResult]>([:])

    func made(_ session: Session) { alive.add() }
    func released(_ id: ConnectionID) { alive.add(-1) }
    func acknowledged(_ token: Int, _ session: Session) { acknowledgements.add() }
    func fileFinished(_ result: TransferResult, _ session: Session) {
        let name =
            switch result {
            case .success(let receipt): receipt.name
            case .failure(let error): error.name
            }
        files.locked { $0[name] = result }
    }

    /// What has become of a file; nil while it is under way.
    func outcome(of name: String) -> TransferResult? { files.locked { $0.removeValue(forKey: name) } }
}

/// The numbered messages of all links. By one thread.
private final class Numbers: @unchecked Sendable {
    private let client: Client, program: LinkProgram, faults: Faults
    private(set) var sent: [Int]

    init(_ client: Client, _ program: LinkProgram, _ faults: Faults) {
        (self.client, self.program, self.faults) = (client, program, faults)
        sent = Array(repeating: 0, count: client.links.count)
    }

    var count: Int { sent.reduce(0, +) }
    var isAllAcknowledged: Bool { program.acknowledgements.value >= count }

    /// One of each link, while not too many are without an answer.
    func send() {
        for (index, link) in client.links.enumerated() {
            let number = withUnsafeBytes(of: UInt32(sent[index]).bigEndian) { Array($0) }
            let message = [Word.number.rawValue, UInt8(index)] + number
            guard (try? link.sendAcknowledged(message.span.bytes, token: sent[index])) != nil else {
                continue
            }
            sent[index] += 1
        }
        _ = eventually(within: .milliseconds(100)) {
            count - program.acknowledgements.value < 20 * sent.count
        }
        usleep(1_000)
    }
}

/// Files over whichever link stands. Two threads: one for each way.
private final class Files: Sendable {
    private let client: Client, program: LinkProgram, folder: Folder, faults: Faults, cut: Counter
    private let turn = Counter()
    let (upward, downward) = (Folder.bytes(300_000), Folder.bytes(200_001))
    private let source: String

    init(_ client: Client, _ program: LinkProgram, _ folder: Folder, _ faults: Faults, _ cut: Counter)
        throws(SystemError)
    {
        (self.client, self.program, self.folder, self.faults, self.cut) = (
            client, program, folder, faults, cut
        )
        source = try folder.make("client", "up", upward.count)
        _ = try folder.make("server", "down", downward.count)
    }

    func up() -> Bool {
        let name = "up-\(turn.add())"
        return go(name) { [source] in
            try $0.sendFile(source, as: name)
        } and: {
            folder.takes("server", name, upward)
        }
    }

    func down() -> Bool {
        go("down") {
            try $0.fetchFile("down")
        } and: {
            folder.takes("client", "down", downward)
        }
    }

    private func go(_ name: String, begin: (Session) throws -> TransferID, and isWhole: () -> Bool) -> Bool {
        let links = client.links
        guard let session = links[turn.add() % links.count].session, (try? begin(session)) != nil else {
            usleep(1_000)
            return false
        }
        var result: TransferResult?
        let isOver = eventually(within: Crowd.patience) {
            result = program.outcome(of: name)
            return result != nil
        }
        guard isOver else {
            faults.note("what became of \(name) was not told")
            return false
        }
        guard case .success = result else {
            cut.add()
            return false
        }
        if !isWhole() { faults.note("\(name) is another") }
        return true
    }
}

/// Plain clients of one thread. Some say something at a time, and then each hears, or leaves and comes again.
private struct Guests {
    private let address: Address, faults: Faults
    private var sockets: [Socket] = []
    private var random: UInt64
    private var seat: Int

    init(_ address: Address, _ count: Int, seed: UInt64, _ faults: Faults) {
        (self.address, self.faults) = (address, faults)
        (random, seat) = (seed &* 0x9E37_79B9_7F4A_7C15, Int(seed) * 31)
        for _ in 0..<max(1, count) { if let socket = come() { sockets.append(socket) } }
    }

    private mutating func next(_ limit: Int) -> Int {
        random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int((random >> 33) % UInt64(limit))
    }

    /// From different addresses, so that ports that rest for a minute do not run out.
    private mutating func come() -> Socket? {
        seat += 1
        let local = Address("127.0.1.\(1 + seat % 200)", port: 0)
        guard let socket = try? Socket.connected(to: address, from: local) else {
            faults.note("a client could not connect")
            return nil
        }
        try? socket.setNoDelay()
        return socket
    }

    /// - Returns: Answers that were compared.
    mutating func turn() -> Int {
        var talking: [(index: Int, answer: [UInt8])] = []
        for _ in 0..<16 {
            let index = next(sockets.count)
            if talking.contains(where: { $0.index == index }) { continue }
            let letters = (0..<next(600)).map { _ in UInt8(truncatingIfNeeded: next(256)) }
            let word = next(8) == 0 ? Word.job : .echo
            let question = word.framed(letters)
            let answer =
                word == .echo ? question : PlainClient.frame([0] + Word.answer([word.rawValue] + letters))
            // Half a message, sometimes: what follows then is the end.
            let isCut = next(20) == 0
            do throws(SystemError) {
                try sockets[index].say(isCut ? Array(question.dropLast(1 + letters.count / 2)) : question)
                if isCut { replace(index, .reset) } else { talking.append((index, answer)) }
            } catch { replace(index, .reset) }
        }
        var answers = 0
        for (index, answer) in talking {
            let leaves = next(10)
            if leaves == 0 {
                replace(index, .reset)
            } else if leaves == 1 {
                // In the middle of the answer.
                _ = faults.hear(Array(answer.prefix(3)), on: sockets[index])
                replace(index, .close)
            } else if faults.hear(answer, on: sockets[index]) {
                answers += 1
                if leaves == 2 { replace(index, .inOrder) }
            } else {
                replace(index, .reset)
            }
        }
        return answers
    }

    private enum Way { case reset, close, inOrder }

    private mutating func replace(_ index: Int, _ way: Way) {
        let socket = sockets[index]
        switch way {
        case .reset: try? socket.abort()
        case .close: socket.close()
        case .inOrder:
            try? socket.shutDownSending()
            if !socket.isEnded(within: Crowd.patience) { faults.note("an end was not answered") }
            socket.close()
        }
        if let new = come() { sockets[index] = new }
    }

    mutating func leave() {
        for socket in sockets { try? socket.abort() }
        sockets = []
    }
}
