import Contexts
import FileTransfer
import Glibc
import Kernel
import Reordering
import Servers
import ServersPitfalls
import Stage
import WorkerPools

/// What the console's commands are done to: a server, or a client. What they say goes where lines go.
final class Console: Sendable {
    private let endpoint: Endpoint
    private let switches: Switches
    private let say: @Sendable (String) -> Void
    /// Opens what a server has beside its own address, each time it is started.
    private let opens: @Sendable () throws -> Void
    /// Ends sessions, while `random` is on.
    private let chance = Guarded<Chance?>(nil)
    /// Set by `quit`.
    let isOver = Gate()

    /// What can be switched on and off while it runs.
    struct Switches: Sendable {
        /// Answers are answered again; see `flood`.
        let flood = Guarded(false)
        /// How long a session stands on average, with `random on`.
        var mean = Duration.seconds(2)
        init() {}
    }

    init(
        _ endpoint: Endpoint, _ switches: Switches, opens: @escaping @Sendable () throws -> Void = {},
        say: @escaping @Sendable (String) -> Void
    ) {
        (self.endpoint, self.switches, self.opens, self.say) = (endpoint, switches, opens, say)
    }

    static let serverHelp =
        "list, send ID TEXT, all TEXT, file ID PATH, get ID NAME, kick ID [abort], kick all, ban ADDRESS, unban ADDRESS, "
        + "bans, bans clear, workers N, random on|off, flood on|off, stats, addresses, stop [PORT], start, quit"
    static let clientHelp =
        "say TEXT, file PATH, get NAME, flood on|off, random on|off, auto on|off, connect [ADDRESS:PORT], disconnect, list, stats, quit"

    /// Commands from the standard input, until its end or `quit`. The end of the input ends the typing only.
    func read() {
        while let line = readLine() {
            do { try perform(line.split(separator: " ").map(String.init)) } catch { say("\(error)") }
            if isOver.isOpen { return }
        }
    }

    func perform(_ words: [String]) throws {
        let rest = words.dropFirst()
        let text = rest.joined(separator: " ")
        switch (words.first ?? "", rest.count) {
        case ("", 0): break
        case ("list", 0): list()
        case ("stats", 0): say(endpoint.statistics.text)
        case ("addresses", 0): say(Endpoint.localAddresses.map(\.host).joined(separator: ", "))
        case ("send", 2...): try session(words[1]).send(rest.dropFirst().joined(separator: " "))
        case ("say", 1...): try say(toServers: text)
        case ("all", 1...):
            let count = endpoint.sendToAll(Array(text.utf8).span.bytes)
            say("sent to \(count.accepted), not to \(count.refused)")
        case ("file", 2) where !(endpoint is Client): try session(words[1]).sendFile(words[2])
        case ("get", 2) where !(endpoint is Client): try session(words[1]).fetchFile(words[2])
        case ("file", 1): try server().sendFile(words[1])
        case ("get", 1): try server().fetchFile(words[1])
        case ("kick", 1) where text == "all": say("\(endpoint.disconnectAll()) sessions are ended")
        case ("kick", 1): try session(words[1]).disconnect()
        case ("kick", 2) where words[2] == "abort": try session(words[1]).disconnect(.abortive)
        case ("ban", 1): endpoint.bans.add(try range(text)); say("\(endpoint.endBanned()) sessions ended")
        case ("unban", 1): endpoint.bans.remove(try range(text))
        case ("bans", 0): say(endpoint.bans.isEmpty ? "nobody is banned" : "\(endpoint.bans)")
        case ("bans", 1) where text == "clear": endpoint.bans = BanList()
        case ("workers", 1): try endpoint.setWorkers(try number(text))
        case ("flood", 1):
            let isOn = try isOn(text)
            switches.flood.locked { $0 = isOn }
        case ("random", 1):
            let isOn = try isOn(text)
            chance.locked { exchange(&$0, with: nil) }?.stop()
            let seed = monotonicNanoseconds()
            if isOn { try chance.locked { $0 = try Chance(endpoint, mean: switches.mean, seed: seed) } }
        case ("auto", 1):
            let isOn = try isOn(text)
            for link in endpoint.links { link.reconnects = isOn }
        case ("connect", 0): for link in endpoint.links { link.connect() }
        case ("connect", 1): try endpoint.connect(to: try address(text))
        case ("disconnect", 0): for link in endpoint.links { link.disconnect() }
        case ("stop", 0): say(try endpoint.stop().text)
        case ("stop", 1): try stopListening(at: text)
        case ("start", 0):
            try endpoint.start()
            try opens()
        case ("quit", 0): isOver.open()
        default:
            throw BadCommand(
                "unknown command; there are: \(endpoint is Client ? Console.clientHelp : Console.serverHelp)")
        }
    }

    private func isOn(_ word: String) throws -> Bool {
        guard word == "on" || word == "off" else { throw BadCommand("\(word) is neither on nor off") }
        return word == "on"
    }

    /// Closes one listener; its sessions go on, and so do the other listeners.
    private func stopListening(at port: String) throws {
        guard let address = endpoint.addresses.first(where: { "\($0.port)" == port }) else {
            let all = endpoint.addresses.map { "\($0.port)" }.joined(separator: ", ")
            throw BadCommand("it does not listen at \(port); it does at \(all.isEmpty ? "none" : all)")
        }
        try endpoint.stopListening(at: address)
        say("\(address) takes no more clients in; those that are in stay")
    }

    private func list() {
        for link in endpoint.links where link.session == nil { say("-  \(link.address)  apart") }
        for session in endpoint.sessions {
            let now = session.statistics
            let file =
                now.file.map {
                    ", \($0.isSending ? "sends" : "receives") \($0.name) \($0.bytes) of \($0.total)"
                } ?? ""
            say(
                "\(session.id)  \(session.address.map { "\($0)" } ?? "?")  \(now.messagesIn) in, \(now.messagesOut) out, "
                    + "\(now.bytesIn) and \(now.bytesOut) bytes, \(now.pendingSends) under way\(now.isPaused ? ", paused" : "")\(file)"
            )
        }
        say("\(endpoint.connectionCount) sessions")
    }

    private func say(toServers text: String) throws {
        for link in endpoint.links { try link.send(Array(text.utf8).span.bytes) }
    }

    private func server() throws -> Session {
        guard let session = endpoint.links.lazy.compactMap(\.session).first else {
            throw BadCommand("there is no connection")
        }
        return session
    }

    private func session(_ word: String) throws -> Session {
        let name = word.hasPrefix("#") ? word : "#" + word
        guard let session = endpoint.sessions.first(where: { "\($0.id)" == name }) else {
            throw BadCommand("there is no session \(name); list shows those that are")
        }
        return session
    }

    private func range(_ word: String) throws -> AddressRange {
        guard let range = AddressRange(word) else {
            throw BadCommand("\(word) is no address, such as 10.0.0.7 or 10.0.0.0/8")
        }
        return range
    }

    private func number(_ word: String) throws -> Int {
        guard let number = Int(word) else { throw BadCommand("\(word) is no number") }
        return number
    }

    private func address(_ word: String) throws -> Address {
        guard let address = parsedAddress(word) else { throw BadCommand("\(word) is no address with a port") }
        return address
    }
}

/// Why a command was not done: one line.
struct BadCommand: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// The address behind `127.0.0.1:80` or `[::1]:80`.
func parsedAddress(_ value: String) -> Address? {
    guard let colon = value.lastIndex(of: ":"), let port = UInt16(value[value.index(after: colon)...]),
        port > 0
    else {
        return nil
    }
    var host = String(value[..<colon])
    if host.hasPrefix("[") && host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    return Address(host, port: port)
}
