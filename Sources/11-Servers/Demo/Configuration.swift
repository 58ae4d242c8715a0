import CKernel
import FileTransfer
import Glibc
import Kernel
import LockedMemory
import Servers
import Stage

/// What a file of `name = value` lines can change, and the values that hold: those of a server, and of the links of a client.
///
/// Lines that are empty or begin with `#` say nothing. A name that there is not, a value that it cannot have and a name set twice
/// are errors, each with its line: a limit that is not in force because of a slip of the pen is found out too late.
struct Configuration: Sendable {
    /// The endpoint's, and where a server listens.
    var server = ServerOptions()
    /// Whether it says where to listen, beside the port of the command line.
    var listensBeside = false
    /// Whether a client comes back, and how if it does: apart, since who says how has not said whether.
    var isReconnecting = true, reconnection = Reconnection()
    /// How long its attempts may take.
    var connectLimit = LinkOptions().connectLimit
    /// Messages that are kept while there is no connection; 0: they are refused.
    var keptWhileApart = 64

    /// The defaults. The handlers of this program answer and return, so a worker may take several packets at a time.
    init() { server.endpoint.batch = 16 }

    /// How a client keeps in touch with a server.
    var link: LinkOptions {
        var link = LinkOptions()
        link.connectLimit = connectLimit
        link.reconnection = isReconnecting ? reconnection : nil
        link.whileApart = keptWhileApart > 0 ? .kept(keptWhileApart) : .refused
        return link
    }

    /// Microseconds, a whole factor, per cent and a number, as a file has them.
    fileprivate var poll: Int {
        get { Int(server.endpoint.port.pollBeforeSleep / .microseconds(1)) }
        set { server.endpoint.port.pollBeforeSleep = .microseconds(newValue) }
    }
    fileprivate var factor: Int {
        get { Int(reconnection.factor) }
        set { reconnection.factor = Double(newValue) }
    }
    fileprivate var jitter: Int {
        get { Int((reconnection.jitter * 100).rounded()) }
        set { reconnection.jitter = Double(newValue) / 100 }
    }
    fileprivate var seed: Int? {
        get { reconnection.seed.map { Int(clamping: $0) } }
        set { reconnection.seed = newValue.map { UInt64($0) } }
    }

    /// What is wrong with a file, and in which line.
    struct Fault: Error, Equatable, CustomStringConvertible {
        let line: Int
        let words: String
        var description: String { "line \(line): \(words)" }
    }

    /// Sets what the lines of a text say.
    ///
    /// - Throws: the first fault. Then what stood before it has been set.
    mutating func read(_ text: String) throws(Fault) {
        var seen: [String: Int] = [:]
        let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }
        for (index, line) in lines.enumerated() {
            let number = index + 1
            let plain = line.trimmed
            if plain.isEmpty || plain.hasPrefix("#") { continue }
            guard let equals = plain.firstIndex(of: "=") else {
                throw Fault(line: number, words: "'\(plain)' should be 'name = value'")
            }
            let name = plain[..<equals].trimmed
            guard let setting = Setting.all.first(where: { $0.name == name }) else {
                let near = Setting.all.map(\.name).filter {
                    $0.lowercased() == name.lowercased() || distance($0, name) <= 2
                }
                let advice =
                    near.first.map { "did you mean '\($0)'?" } ?? "'--config -' prints those that there are"
                throw Fault(line: number, words: "there is no option '\(name)'; \(advice)")
            }
            if let earlier = seen.updateValue(number, forKey: name) {
                throw Fault(line: number, words: "'\(name)' has been set in line \(earlier)")
            }
            let value = plain[plain.index(after: equals)...].trimmed
            guard setting.write(&self, value) else {
                throw Fault(line: number, words: "'\(name)' takes \(setting.takes), not '\(value)'")
            }
        }
    }

    /// All options with their present values, as `read` takes them.
    var text: String {
        Setting.all.map { "# \($0.takes)\n\($0.name) = \($0.read(self))\n" }.joined()
    }
}

/// An option: its name in a file, what it takes in words, and how its value is read and written.
struct Setting: Sendable {
    let name: String
    let takes: String
    let read: @Sendable (Configuration) -> String
    /// False when it cannot have that value.
    let write: @Sendable (inout Configuration, String) -> Bool

    private typealias Path<Value> = WritableKeyPath<Configuration, Value> & Sendable

    private static func number(_ name: String, _ path: Path<Int>, _ range: ClosedRange<Int>) -> Setting {
        Setting(name: name, takes: "a number from \(range.lowerBound) to \(range.upperBound)") {
            "\($0[keyPath: path])"
        } write: {
            guard let value = Int($1), range.contains(value) else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    /// A number, or `all`.
    private static func kept(_ name: String, _ path: Path<Int>) -> Setting {
        Setting(name: name, takes: "how many are kept: a number from 0 on, or 'all'") {
            $0[keyPath: path] == .max ? "all" : "\($0[keyPath: path])"
        } write: {
            guard let value = $1 == "all" ? .max : Int($1), value >= 0 else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func number(_ name: String, _ path: Path<Int?>, _ range: ClosedRange<Int>) -> Setting {
        Setting(name: name, takes: "a number from \(range.lowerBound) to \(range.upperBound), or 'none'") {
            $0[keyPath: path].map { "\($0)" } ?? "none"
        } write: {
            let value = Int($1)
            guard $1 == "none" || value.map(range.contains) == true else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func time(_ name: String, _ path: Path<Duration>) -> Setting {
        Setting(name: name, takes: "a time such as '500 ms', '10 s' or '2 min'") {
            $0[keyPath: path].inWords
        } write: {
            guard let value = Duration(words: $1) else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func time(_ name: String, _ path: Path<Duration?>) -> Setting {
        Setting(name: name, takes: "a time such as '500 ms', '10 s' or '2 min', or 'none'") {
            $0[keyPath: path]?.inWords ?? "none"
        } write: {
            let value = Duration(words: $1)
            guard $1 == "none" || value != nil else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func word<Value: Equatable & Sendable>(
        _ name: String, _ path: Path<Value>, _ words: [(String, Value)]
    ) -> Setting {
        Setting(name: name, takes: words.map { "'\($0.0)'" }.joined(separator: " or ")) { configuration in
            words.first { $0.1 == configuration[keyPath: path] }!.0
        } write: { configuration, word in
            guard let value = words.first(where: { $0.0 == word })?.1 else { return false }
            configuration[keyPath: path] = value
            return true
        }
    }

    /// Several values with spaces between, or `none`.
    private static func list<Value: Sendable>(
        _ name: String, _ takes: String, read: @escaping @Sendable (Configuration) -> [Value],
        parse: @escaping @Sendable (Substring) -> Value?, text: @escaping @Sendable (Value) -> String,
        write: @escaping @Sendable (inout Configuration, [Value]) -> Bool
    ) -> Setting {
        Setting(name: name, takes: takes) {
            let values = read($0).map(text)
            return values.isEmpty ? "none" : values.joined(separator: " ")
        } write: {
            let words = $1 == "none" ? [] : $1.split(whereSeparator: { $0 == " " || $0 == "\t" })
            let values = words.compactMap(parse)
            guard values.count == words.count, !words.isEmpty || $1 == "none" else { return false }
            return write(&$0, values)
        }
    }

    /// All of them, in the order of the table in chapter 11.
    static let all: [Setting] = [
        list("address", "addresses with ports, such as '127.0.0.1:4000 [::1]:4000'") {
            $0.server.addresses
        } parse: {
            Address(written: $0)
        } text: {
            $0.description
        } write: {
            ($0.server.addresses, $0.listensBeside) = ($1, true)
            return !$1.isEmpty
        },
        number("maximumConnections", \.server.endpoint.maximumConnections, 1...1_000_000),
        number("maximumPerAddress", \.server.endpoint.maximumPerAddress, 1...1_000_000),
        list("bans", "addresses and ranges, such as '127.0.0.3 10.0.0.0/8', or 'none'") {
            $0.server.endpoint.bans.ranges
        } parse: {
            AddressRange($0)
        } text: {
            $0.description
        } write: {
            $0.server.endpoint.bans = BanList($1)
            return true
        },
        word(
            "refusal", \.server.endpoint.refusal, [("silent", .silent), ("reset", .reset), ("words", .words)]),
        number("ioWorkers", \.server.endpoint.ioWorkers, 1...256),
        number("concurrency", \.server.endpoint.concurrency, 0...256),
        number("batch", \.server.endpoint.batch, 1...1_024),
        number("logicalWorkers", \.server.endpoint.logicalWorkers, 1...256),
        number("jobCapacity", \.server.endpoint.jobCapacity, 1...1_000_000),
        number("jobsPerClient", \.server.endpoint.jobsPerClient, 1...1_000_000),
        kept("maximumFreeBuffers", \.server.endpoint.maximumFreeBuffers),
        kept("maximumFreeContexts", \.server.endpoint.maximumFreeContexts),
        number("pendingReads", \.server.endpoint.pendingReads, 1...64),
        number("bufferSize", \.server.endpoint.bufferSize, 64...16_777_216),
        number("maximumPackage", \.server.endpoint.maximumPackage, 1...16_777_216),
        number("maximumPendingSends", \.server.endpoint.maximumPendingSends, 1...65_536),
        word("whenFull", \.server.endpoint.whenFull, [("pauses", .pausesReading), ("refuses", .refuses)]),
        number("accepts.initial", \.server.endpoint.accepts.initial, 1...65_536),
        number("accepts.lowWater", \.server.endpoint.accepts.lowWater, 0...65_536),
        number("accepts.maximum", \.server.endpoint.accepts.maximum, 1...65_536),
        number("accepts.receiveLength", \.server.endpoint.accepts.receiveLength, 0...65_536),
        time("accepts.silenceLimit", \.server.endpoint.accepts.silenceLimit),
        time("accepts.lookInterval", \.server.endpoint.accepts.lookInterval),
        time("accepts.backOff", \.server.endpoint.accepts.backOff),
        time("accepts.longestBackOff", \.server.endpoint.accepts.longestBackOff),
        number("backlog", \.server.endpoint.backlog, 1...65_536),
        keepAlive,
        time("limits.handshake", \.server.endpoint.limits.handshake),
        time("limits.idle", \.server.endpoint.limits.idle),
        time("limits.message", \.server.endpoint.limits.message),
        time("limits.stall", \.server.endpoint.limits.stall),
        time("limits.close", \.server.endpoint.limits.close),
        time("limits.stop", \.server.endpoint.limits.stop),
        word(
            "reading", \.server.endpoint.reading,
            [("adaptive", .adaptive), ("buffered", .buffered), ("zeroByte", .zeroByte)]),
        number("budgetPages", \.server.endpoint.budgetPages, 1...1_000_000),
        word("locking", \.server.endpoint.locking, [("counted", .counted), ("system", .system)]),
        word(
            "port.driver", \.server.endpoint.port.driver,
            [("any", nil)] + DriverKind.allCases.map { ($0.rawValue, $0) }),
        number("port.poll", \.poll, 0...1_000_000),
        word(
            "port.submission", \.server.endpoint.port.submission,
            [("atOnce", .atOnce), ("withNextWait", .withNextWait), ("afterBatch", .afterBatch)]),
        word("acknowledges", \.server.endpoint.acknowledges, [("off", false), ("on", true)]),
        folder,
        word(
            "log", \.server.endpoint.log,
            [("none", .none), ("warnings", .warnings), ("information", .information)]),
        time("link.connectLimit", \.connectLimit),
        word("link.reconnects", \.isReconnecting, [("on", true), ("off", false)]),
        time("link.first", \.reconnection.first),
        number("link.factor", \.factor, 1...100),
        time("link.longest", \.reconnection.longest),
        number("link.jitter", \.jitter, 0...100),
        number("link.attempts", \.reconnection.attempts, 1...1_000_000),
        number("link.seed", \.seed, 0...Int.max),
        number("link.kept", \.keptWhileApart, 0...1_000_000),
    ]

    private static let keepAlive = Setting(
        name: "keepAlive", takes: "two times and a number, such as '30 s, 10 s, 3', or 'none'"
    ) {
        $0.server.endpoint.keepAlive.map { "\($0.idle.inWords), \($0.interval.inWords), \($0.probes)" }
            ?? "none"
    } write: {
        if $1 == "none" {
            $0.server.endpoint.keepAlive = nil
            return true
        }
        let parts = $1.split(separator: ",", omittingEmptySubsequences: false).map(\.trimmed)
        guard parts.count == 3, let idle = Duration(words: parts[0]),
            let interval = Duration(words: parts[1]),
            let probes = Int(parts[2]), (1...127).contains(probes), idle >= .seconds(1),
            interval >= .seconds(1)
        else { return false }
        $0.server.endpoint.keepAlive = .init(idle: idle, interval: interval, probes: probes)
        return true
    }

    private static let folder = Setting(name: "files.folder", takes: "a folder, or 'none' for no files") {
        $0.server.endpoint.files?.folder ?? "none"
    } write: {
        guard !$1.isEmpty else { return false }
        $0.server.endpoint.files = $1 == "none" ? nil : TransferOptions(folder: $1)
        return true
    }
}

extension Duration {
    /// A time in words: `500 ms`, `10 s`, `2 min`. More than zero.
    fileprivate init?(words: String) {
        let digits = words.prefix { $0.isASCII && $0.isNumber }
        let unit = words.dropFirst(digits.count).trimmed
        guard let number = Int64(digits), (1...1_000_000_000).contains(number) else { return nil }
        switch unit {
        case "ms": self = .milliseconds(number)
        case "s": self = .seconds(number)
        case "min": self = .seconds(60 * number)
        default: return nil
        }
    }

    fileprivate var inWords: String {
        let milliseconds = Int64(self / .milliseconds(1))
        if milliseconds % 60_000 == 0 { return "\(milliseconds / 60_000) min" }
        return milliseconds % 1000 == 0 ? "\(milliseconds / 1000) s" : "\(milliseconds) ms"
    }
}

extension Address {
    /// An address with a port: `127.0.0.1:80`, `[::1]:80`.
    init?(written text: some StringProtocol) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            return nil
        }
        self.init(host, port: port)
    }
}

extension StringProtocol {
    fileprivate var trimmed: String {
        let start = drop { $0.isWhitespace }
        return String(start.reversed().drop { $0.isWhitespace }.reversed())
    }
}

/// How many letters have to be changed, put in or left out to make one word of the other.
private func distance(_ a: String, _ b: String) -> Int {
    let (a, b) = (Array(a), Array(b))
    var row = Array(0...b.count)
    for (line, letter) in a.enumerated() {
        var corner = row[0]
        row[0] = line + 1
        for (place, other) in b.enumerated() {
            let change = corner + (letter == other ? 0 : 1)
            corner = row[place + 1]
            row[place + 1] = min(change, row[place] + 1, row[place + 1] + 1)
        }
    }
    return row[b.count]
}

extension Configuration {
    /// What `--config FILE` says; the defaults without it. A fault ends the program: one line, and 2.
    init(_ options: Stage.Options) throws(SystemError) {
        self.init()
        guard let path = options.value(configOption), path != "-" else { return }
        let text: String
        do throws(SystemError) { text = try contents(of: path) } catch {
            refuse("11-server-and-client: \(error)")
        }
        do throws(Fault) { try read(text) } catch { refuse("11-server-and-client: \(path), \(error)") }
    }
}

/// All of a file, as text. Longer than any configuration is an error: it may be a device.
func contents(of path: String) throws(SystemError) -> String {
    let descriptor = ck_open(path, O_RDONLY | O_CLOEXEC, 0)
    guard descriptor >= 0 else { throw SystemError(errno, attempted: "read \(path)") }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    var filled = 0
    while filled < bytes.count {
        let count = bytes.withUnsafeMutableBytes {
            Glibc.read(descriptor, $0.baseAddress! + filled, $0.count - filled)
        }
        if count == 0 { return String(decoding: bytes[..<filled], as: UTF8.self) }
        if count < 0, errno != EINTR { throw SystemError(errno, attempted: "read \(path)") }
        filled += max(0, count)
    }
    throw SystemError(EFBIG, attempted: "read \(path)")
}
