import FileTransfer
import FileTransferPitfalls
import Glibc
import Kernel
import Stage

// A full disk is played in a process of its own, which is this program again.
DiskFull.playIfChild()

/// `--folder DIR`
let folderOption = Option(
    "folder", "DIR", "where files arrive and lie: of --serve, or of get (the current one)"
) { $0.isEmpty ? "is no folder" : nil }
/// `--to ADDRESS:PORT`
let toOption = Option("to", "ADDRESS:PORT", "send: the server", fault: addressFault)
/// `--from ADDRESS:PORT`
let fromOption = Option("from", "ADDRESS:PORT", "get: the server", fault: addressFault)
/// `--replace`
let replaceOption = Option.flag("replace", "let arriving files replace those of the same name")

let options = Stage.Options.ofThisProgram(
    Usage(
        "08-file-transfer",
        "a message lands in the middle of a file, and what it takes that files arrive whole.",
        options: [
            .serve, folderOption, toOption, fromOption, replaceOption, .address, .workers, .concurrency,
            .driver, .svg,
            .trace, .plain,
        ],
        commands: [
            ("send", "send FILE … --to ADDRESS:PORT: send files to a server"),
            ("get", "get NAME … --from ADDRESS:PORT: fetch files from a server"),
        ],
        maximumArguments: 10_000, pitfalls: Chapter08.pitfalls))
let terminal = Terminal(options)
// With `ulimit -f`, a file that is too long is an error like any other, and not the end of the program.
signal(SIGXFSZ, SIG_IGN)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let command = options.words.first {
        try transfer(command, Array(options.words.dropFirst()), options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter08.pitfalls, driver: options.driver, on: terminal)
    } else {
        try playBroken(options, on: terminal)
        try playRight(options, on: terminal)
        try playRefusals(options, on: terminal)
        try showSteps(options, on: terminal)
    }
} catch {
    fail("08-file-transfer: \(error)")
}
terminal.finish()
