import Glibc
import Kernel
import Timeline

/// What a program is called, what it does, and what it accepts.
public struct Usage: Sendable {
    /// What the reader types after `swift run`, such as `02-completion-ports` or `-c release bench`.
    public var program: String
    /// What the program does, in a sentence or two.
    public var summary: String
    /// The options that it accepts, besides `--help` and, if it has pitfalls, `--pitfall`.
    public var options: [Option]
    /// The words of which the first one may be given; empty if the program takes no words.
    public var commands: [(name: String, help: String)]
    /// How many more words may follow the first one.
    public var maximumArguments: Int
    /// The pitfalls that `--pitfall` can run.
    public var pitfalls: [Pitfall]

    /// Makes a usage.
    public init(
        _ program: String, _ summary: String, options: [Option],
        commands: [(name: String, help: String)] = [],
        maximumArguments: Int = 0, pitfalls: [Pitfall] = []
    ) {
        self.program = program
        self.summary = summary
        self.options = options
        self.commands = commands
        self.maximumArguments = maximumArguments
        self.pitfalls = pitfalls
    }

    /// The program's own name, without what else stands after `swift run`.
    var name: String { program.split(separator: " ").last.map(String.init) ?? program }

    /// All options, in the order in which `--help` shows them.
    var all: [Option] { options + (pitfalls.isEmpty ? [] : [.pitfall]) + [.help] }

    /// What `--help` prints.
    /// - Parameter columns: the width that it is wrapped to, at words.
    public func text(columns: Int = 80) -> String {
        let rest = maximumArguments > 0 ? " [ARGUMENT …]" : ""
        var text = wrapped("\(name): \(summary)", to: columns) + "\n\n"
        text += "usage: swift run \(program)\(commands.isEmpty ? "" : " [COMMAND\(rest)]") [OPTION …]\n"
        let left = all.map { "--\($0.name)" + ($0.placeholder.isEmpty ? "" : " \($0.placeholder)") }
        let width = (left + commands.map(\.name) + pitfalls.map(\.slug)).map(\.count).max()! + 2
        func line(_ left: String, _ right: String) -> String {
            let front = "  " + left + String(repeating: " ", count: width - left.count)
            return wrapped(front + right, to: columns, hanging: width + 2) + "\n"
        }
        if !commands.isEmpty { text += "\n" + commands.map { line($0.name, $0.help) }.joined() }
        text += "\n" + zip(left, all).map { line($0, $1.help) }.joined()
        if !pitfalls.isEmpty {
            text += "\npitfalls:\n" + pitfalls.map { line($0.slug, $0.title) }.joined()
        }
        return text
    }

    /// Prints ``text(columns:)`` and ends the program.
    public func print() -> Never {
        let terminal = Terminal(plain: true, program: name)
        terminal.print(text(columns: min(terminal.width ?? 80, 100)))
        terminal.finish()
    }
}

/// Why a command line was refused: one line that says what is wrong and what to do.
public struct BadUsage: Error, Equatable, CustomStringConvertible {
    /// The line.
    public let description: String
    init(_ description: String) { self.description = description }
}

/// A command line, understood and checked.
public struct Options: Sendable {
    /// What the program accepts.
    public let usage: Usage
    /// The command and its arguments.
    public private(set) var words: [String] = []
    /// Whether `--help` was among the arguments.
    public private(set) var wantsHelp = false
    private var values: [String: String] = [:]

    /// Understands this program's command line. Prints the usage and ends with 0 if it says `--help`; prints one line
    /// and ends with 2 if something is wrong with it.
    ///
    /// This comes first in every program, so it also prepares the process: the standard streams are open, SIGPIPE is
    /// ignored, and as many descriptors are allowed as the system permits. A process that was started as the child of a
    /// ``ClientLoad`` becomes one here, and does not return.
    public static func ofThisProgram(_ usage: Usage) -> Options {
        StandardStreams.prepare()
        Resources.raiseDescriptorLimit()
        ClientLoad.runIfChild()
        do {
            let options = try Options(Array(CommandLine.arguments.dropFirst()), usage)
            if options.wantsHelp { usage.print() }
            return options
        } catch {
            refuse("\(usage.name): \(error)")
        }
    }

    /// Understands a command line.
    public init(_ arguments: [String], _ usage: Usage) throws(BadUsage) {
        self.usage = usage
        var rest = arguments[...]
        // Behind "--" every argument is a word, whatever it begins with: a file may be called "-x".
        var areOptionsOver = false
        while let argument = rest.popFirst() {
            if areOptionsOver {
                try word(argument)
            } else if argument == "--" {
                areOptionsOver = true
            } else if argument == "-h" {
                wantsHelp = true
            } else if argument.hasPrefix("-") && argument != "-" {
                try option(argument, &rest)
            } else {
                try word(argument)
            }
        }
    }

    private mutating func option(_ argument: String, _ rest: inout ArraySlice<String>) throws(BadUsage) {
        let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(
            String.init)
        guard let option = usage.all.first(where: { "--" + $0.name == parts[0] }) else {
            let isFile = usage.maximumArguments > 0 && access(argument, F_OK) == 0
            let advice = isFile ? "for the file write -- in front of it" : "--help lists the options"
            throw BadUsage("unknown option \(printable(parts[0])); \(advice)")
        }
        if option.placeholder.isEmpty {
            guard parts.count == 1 else { throw BadUsage("\(parts[0]) takes no value; leave \"=\" out") }
            wantsHelp = wantsHelp || option.name == "help"
            values[option.name] = ""
            return
        }
        if parts.count == 1 && (rest.isEmpty || rest.first!.hasPrefix("--")) {
            throw BadUsage("\(parts[0]) needs a value: \(parts[0]) \(option.placeholder)")
        }
        let value = parts.count == 2 ? parts[1] : rest.removeFirst()
        if let fault = option.fault(value) { throw BadUsage("\(parts[0]): \(printable(value)) \(fault)") }
        if option.name == "pitfall" && !usage.pitfalls.contains(where: { $0.slug == value }) {
            throw BadUsage("--pitfall: \(printable(value)) is none of this chapter's; --help lists them")
        }
        values[option.name] = value
    }

    private mutating func word(_ argument: String) throws(BadUsage) {
        if words.isEmpty && !usage.commands.contains(where: { $0.name == argument }) {
            let known = usage.commands.map(\.name).joined(separator: ", ")
            let advice = known.isEmpty ? "this program takes options only, see --help" : "there are: \(known)"
            throw BadUsage("unknown word \(printable(argument)); \(advice)")
        }
        if words.count > usage.maximumArguments {
            throw BadUsage("\(printable(argument)) is one word too many; --help shows what is accepted")
        }
        words.append(argument)
    }

    /// A value in quotation marks on one line, whatever is in it.
    private func printable(_ value: String) -> String {
        let cut = value.count > 60 ? value.prefix(60) + "…" : value[...]
        return "\"" + cut.map { $0.isNewline || $0.unicodeScalars.contains { $0.value < 0x20 } ? "?" : $0 }
            + "\""
    }
}

extension Options {
    /// The value given for an option, if one was.
    public func value(_ option: Option) -> String? { values[option.name] }
    /// The number given for an option, if one was.
    public func number(_ option: Option) -> Int? { values[option.name].flatMap { Int($0) } }
    /// Whether the option was given.
    public func has(_ option: Option) -> Bool { values[option.name] != nil }

    /// `--serve`: the port.
    public var serve: UInt16? { number(.serve).map { UInt16($0) } }
    /// `--address`, or 127.0.0.1.
    public var address: String { value(.address) ?? "127.0.0.1" }
    /// Where `--serve` and `--address` want the server to listen; any free port unless `--serve` names one.
    public var listenAddress: Address { Address(address, port: serve ?? 0)! }
    /// `--poll`
    public var poll: Duration { .microseconds(number(.poll) ?? 0) }
    /// `--workers`
    public var workers: Int? { number(.workers) }
    /// `--concurrency`
    public var concurrency: Int? { number(.concurrency) }
    /// `--driver`, or else what `Kernel` chooses.
    public var driver: DriverKind { value(.driver).flatMap { DriverKind(rawValue: $0) } ?? .standard }
    /// `--clients`
    public var clients: Int? { number(.clients) }
    /// `--seconds`
    public var seconds: Duration? { value(.seconds).flatMap { Double($0) }.map { .seconds($0) } }
    /// `--plain`
    public var plain: Bool { has(.plain) }
    /// `--pitfall`
    public var pitfall: String? { value(.pitfall) }

    /// Writes a recording where `--svg` and `--trace` want it.
    /// - Parameters:
    ///   - title: the picture's heading.
    ///   - description: the picture's point in a sentence, for those who cannot see it.
    public func save(_ recording: Recording, title: String, description: String) throws(SystemError) {
        if let path = value(.svg) {
            try writeFile(path, recording.svg(title: title, description: description))
        }
        if let path = value(.trace) { try writeFile(path, recording.trace(process: usage.program)) }
    }
}
