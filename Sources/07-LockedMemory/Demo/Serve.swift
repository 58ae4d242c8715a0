import Kernel
import LockedMemory
import Stage
import Timeline

/// The server's choices, as the command line wants them.
func serverOptions(_ options: Stage.Options, _ mode: String?) -> ThriftyServer.Options {
    var choices = serverOptions(mode: mode, driver: options.driver)
    choices.workers = options.workers ?? 2
    choices.concurrency = options.concurrency ?? 0
    return choices
}

/// The choices for one mode, or else for the adaptive one.
func serverOptions(mode: String?, driver: DriverKind) -> ThriftyServer.Options {
    var choices = ThriftyServer.Options()
    choices.port.driver = driver
    switch mode {
    case "buffered": choices.policy = .buffered
    case "zero-byte": choices.policy = .zeroByte
    default: choices.policy = nil
    }
    return choices
}

/// `--serve`: keeps the echo server up until Ctrl-C or SIGTERM, and says what it has done.
func serve(_ options: Stage.Options, _ mode: String?, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    if options.has(.svg) || options.has(.trace) { Recorder.start() }
    let server = try ThriftyServer(on: options.listenAddress, options: serverOptions(options, mode))
    terminal.say("listening on \(server.address)")
    _ = interrupt.wait()
    let (counters, budget, present) = (server.counters, server.budget.counters, server.mode)
    let isClean = server.stop()
    if Recorder.isRecording {
        try options.save(
            Recorder.stop(), title: "The echo server of chapter 07",
            description: "What the server's operations and workers did while it was up.")
    }
    terminal.say(
        "\(counters.accepted) connections, \(counters.connections) of them open at the end; mode \(present), "
            + "changed \(counters.changes.toZeroByte) times to zero-byte and \(counters.changes.toBuffered) back"
    )
    terminal.say(
        "pages locked at the end: \(budget.locked), at most: \(budget.peak); notices: \(counters.notices), "
            + "packets with bytes: \(counters.receives)")
    terminal.claim("every page and every buffer is back", holds: isClean)
}
