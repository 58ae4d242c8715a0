import Glibc
import Stage

// MARK: What is wanted

let limitOption = Option.number("limit", "SECONDS", in: 1...3600, "how long one chapter may take (60)")
let listOption = Option.flag("list", "names the chapters and ends")
let usage = Usage(
    "tour", "plays every chapter's demonstration in order, or only the chapters named.",
    options: [listOption, limitOption, .plain],
    commands: Stop.all.map { (name: $0.number, help: "\($0.title): \($0.sight)") },
    maximumArguments: Stop.all.count)

StandardStreams.prepare()
/// The command line, with every name of a chapter turned into its number.
let options: Options
do {
    options = try Options(CommandLine.arguments.dropFirst().map(Stop.number), usage)
} catch {
    refuse("tour: \(error)")
}
if options.wantsHelp { usage.print() }
let terminal = Terminal(options)
if options.has(listOption) {
    for stop in Stop.all {
        let command = ([stop.product] + stop.arguments).joined(separator: " ")
        terminal.say("\(stop.number) · \(stop.title): \(stop.sight)\n     swift run \(command)")
    }
    terminal.finish()
}
let limit = options.number(limitOption) ?? 60
let stops = options.words.isEmpty ? Stop.all : options.words.map(Stop.called)

// MARK: The tour

/// The folder of this program, where the build puts the others too.
let folder: String = {
    var path = [CChar](repeating: 0, count: Int(PATH_MAX))
    guard readlink("/proc/self/exe", &path, path.count - 1) > 0 else {
        refuse("tour: cannot find the programs beside its own")
    }
    return String(cString: dirname(&path))
}()

let program = Program()
let clock = ContinuousClock()
var summary: [String] = []
var failures = 0
for stop in stops {
    terminal.heading("\(stop.number) · \(stop.title): \(stop.sight)")
    terminal.say()
    var ending = Ending.exited(0)
    let arguments = stop.arguments + (options.plain ? ["--plain"] : [])
    let time = clock.measure {
        ending = program.run("\(folder)/\(stop.product)", arguments, limit: .seconds(limit))
    }
    if case .interrupted(let signal) = ending {
        terminal.say("\ntour: interrupted in chapter \(stop.number)")
        exit(128 + signal)
    }
    if ending != .exited(0) { failures += 1 }
    let seconds = (time / .milliseconds(100)).rounded() / 10
    let line = "\(stop.number) · \(stop.title): \(ending.verdict(limit: limit)), \(seconds) s"
    terminal.say("\n" + terminal.strong(line))
    summary.append(line)
}
terminal.heading("the tour: \(stops.count - failures) of \(stops.count) held")
for line in summary { terminal.say(line) }
if failures > 0 { exit(1) }
terminal.finish()
