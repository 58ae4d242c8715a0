import CompletionPorts
import Glibc
import Kernel
import Stage
import Timeline

/// The server's choices, as the command line wants them.
func serverOptions(_ options: Stage.Options, workers: Int) -> EchoServer.Options {
    var choices = EchoServer.Options()
    choices.workers = workers
    choices.concurrency = options.concurrency ?? 0
    choices.port.driver = options.driver
    choices.port.pollBeforeSleep = options.poll
    return choices
}

/// `--serve`: keeps the echo server up until Ctrl-C or SIGTERM, and says what it has done.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    let isRecorded = options.has(.svg) || options.has(.trace)
    if isRecorded { Recorder.start() }
    let workers = options.workers ?? 2 * Kernel.Thread.processors
    let server = try EchoServer(
        on: options.listenAddress, options: serverOptions(options, workers: workers))
    terminal.say("listening on \(server.address)")
    _ = interrupt.wait(within: options.seconds)
    let open = server.counters.connections
    server.stop()
    let counters = server.counters
    terminal.say(
        "\(counters.accepted) connections served, \(counters.refused) refused, \(counters.failed) failed; "
            + "\(open) open at the end; \(workers) workers over \(server.driverKind)")
    if isRecorded {
        try options.save(
            Recorder.stop(), title: "The echo server of chapter 02",
            description: "What the server's operations and workers did while it was up.")
    }
}
