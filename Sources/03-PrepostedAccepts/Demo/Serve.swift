import Glibc
import Kernel
import PrepostedAccepts
import Stage
import Timeline

/// The server's choices, as the command line wants them.
func serverOptions(_ options: Stage.Options) -> PrepostedServer.Options {
    var choices = PrepostedServer.Options()
    choices.workers = options.workers ?? 1
    choices.concurrency = options.concurrency ?? 0
    choices.port.driver = options.driver
    return choices
}

/// `--serve`: keeps the server up until Ctrl-C or SIGTERM, and says what it has done.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    let isRecorded = options.has(.svg) || options.has(.trace)
    if isRecorded { Recorder.start() }
    var choices = serverOptions(options)
    // For people who type: a client may think for ten seconds before it says its first word.
    choices.pool.silenceLimit = .seconds(10)
    let server = try PrepostedServer(on: options.listenAddress, options: choices)
    terminal.say("listening on \(server.address)")
    _ = interrupt.wait(within: options.seconds)
    let open = server.counters.connections
    server.stop()
    let (counters, accepts) = (server.counters, server.accepts)
    terminal.say(
        "\(accepts.accepted) clients served, \(accepts.swept) ended for their silence, \(accepts.empty) left without "
            + "a word, \(counters.refused) refused; \(open) open at the end; at most \(accepts.peak) accepts pending"
    )
    if isRecorded {
        try options.save(
            Recorder.stop(), title: "The server of chapter 03",
            description: "What the server's accepts and connections did while it was up.")
    }
}
