import Glibc
import Kernel
import OneThreadPerClient
import OneThreadPerClientPitfalls
import Stage

// The servers that are measured run in processes of their own: this program again, with words that nobody types.
if CommandLine.arguments.count == 4, CommandLine.arguments[1] == MeasuredServer.word {
    MeasuredServer.beOne(CommandLine.arguments[2], CommandLine.arguments[3])
}

let clients = Option.number("clients", in: 2...4_000, "how many clients connect in the end (1000)")
let usage = Usage(
    "00-one-thread-per-client",
    "five servers of the same echo: what each of them costs while its clients are silent.",
    options: [
        .serve, .address, clients, .driver,
        .output("svg", "write what the clients cost as a picture (curves)"), .trace, .plain,
    ],
    commands: [
        ("thread", "with --serve: a thread for each client"),
        ("turn", "with --serve: one thread, one client after the other"),
        ("polling", "with --serve: one thread that asks all the time"),
        ("readiness", "with --serve: one thread that is told who is ready (unless another is named)"),
        ("completion", "with --serve: one thread that is told what is done"),
    ],
    pitfalls: Chapter00.pitfalls)
let options = Options.ofThisProgram(usage)
let terminal = Terminal(options)

do {
    if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter00.pitfalls, driver: options.driver, on: terminal)
    } else if options.serve != nil {
        try serve(options.words.first.flatMap { ServerKind(rawValue: $0) } ?? .readiness)
    } else if let word = options.words.first {
        refuse("\(usage.program): \(word) names a server to keep up: add --serve PORT")
    } else {
        try tellStory(clients: options.number(clients) ?? 1_000)
    }
} catch {
    refuse("\(usage.program): \(error)")
}
terminal.finish()
