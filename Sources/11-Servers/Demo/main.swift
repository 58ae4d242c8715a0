import Glibc
import Kernel
import Servers
import ServersPitfalls
import Stage

ownProcess.runIfAsked()

let folderOption = Option("folder", "DIR", "where files arrive and lie; none without it") {
    $0.isEmpty ? "is no folder" : nil
}
let handlerOption = Option.choice(
    "handler", ["echo", "show"], "give each message back, or show it to everybody (echo)")
let statsOption = Option.number("stats", in: 1...3_600, "print the figures every so many seconds")

let configOption = Option(
    "config", "FILE", "take options from lines 'name = value'; '-' prints the present ones")
let watchOption = Option.number(
    "watch", "PORT", in: 0...65_535, "with --serve: keep a page with the figures up for browsers, there")
let pidFileOption = Option.output(
    "pid-file",
    "with --serve: write the process's number there as soon as it listens, and remove it at the end")

let options = Stage.Options.ofThisProgram(
    Usage(
        "11-server-and-client",
        "one endpoint that listens and connects: who is let in, how long what may take, and how it ends.",
        options: [
            .serve, .address, configOption, watchOption, pidFileOption, folderOption, handlerOption,
            statsOption, .workers,
            .concurrency, .clients,
            .driver,
            .plain,
        ],
        commands: [
            ("client", "client ADDRESS:PORT …: connect, and come back; commands on standard input"),
            ("stop", "stop PORT: have the program that serves there end in good order, and wait for it"),
        ],
        maximumArguments: 64, pitfalls: Chapter11.pitfalls))
let terminal = Terminal(options)

do {
    let configuration = try Configuration(options)
    if options.value(configOption) == "-" {
        terminal.print(configuration.text)
    } else if options.serve != nil {
        try serve(configuration, options, on: terminal)
    } else if options.words.first == "client" {
        try runClient(Array(options.words.dropFirst()), configuration, options, on: terminal)
    } else if options.words.first == "stop" {
        guard options.words.count == 2, let port = UInt16(options.words[1]), port > 0 else {
            refuse("11-server-and-client: stop which server? Name its port: stop 4711")
        }
        // Longer than its sessions have by default.
        let process = try ServingName(port: port).stop(within: .seconds(20))
        terminal.say("stopped: process \(process), at port \(port)")
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter11.pitfalls, driver: options.driver, on: terminal)
    } else {
        try tellStory(options, on: terminal)
    }
} catch {
    fail("11-server-and-client: \(error)")
}
terminal.finish()
