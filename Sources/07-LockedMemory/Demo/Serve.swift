import Kernel
import LockedMemory
import Reordering
import Stage
import Timeline

/// The server's choices, as the command line wants them.
func serverOptions(_ options: Stage.Options, _ mode: String?) -> BudgetedServer.Options {
    var choices = serverOptions(mode: mode, driver: options.driver)
    choices.hub.workers = options.workers ?? 2
    choices.hub.concurrency = options.concurrency ?? 0
    choices.hub.port.pollBeforeSleep = options.poll
    return choices
}

/// The choices for one mode, or else for the adaptive one.
func serverOptions(mode: String?, driver: DriverKind) -> BudgetedServer.Options {
    var choices = BudgetedServer.Options()
    choices.hub.port.driver = driver
    switch mode {
    case "buffered": choices.choice = .buffered
    case "zero-byte": choices.choice = .zeroByte
    case "mixed":
        // One read with a buffer, and room for one behind the wait.
        choices.choice = .mixed(reads: 1)
        choices.hub.pendingReads = 2
    default: choices.choice = nil
    }
    return choices
}

/// `--serve`: keeps the echo server up until Ctrl-C or SIGTERM, and says what it has done.
func serve(_ options: Stage.Options, _ mode: String?, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    if options.has(.svg) || options.has(.trace) { Recorder.start() }
    let choices = serverOptions(options, mode)
    if mode == ReadsAfterWait.name { return try serve(choices.hub, options, until: interrupt, on: terminal) }
    let server = try BudgetedServer(on: options.listenAddress, options: choices)
    terminal.say("listening on \(server.address)")
    _ = interrupt.wait()
    let (counters, receives) = (server.hub.counters, server.receives)
    let (present, changes) = (receives.mode, receives.changesMade)
    let isClean = server.stop()
    if Recorder.isRecording {
        try options.save(
            Recorder.stop(), title: "The echo server of chapter 07",
            description: "What the server's operations and workers did while it was up.")
    }
    let budget = receives.budget.counters
    terminal.say(
        "\(counters.opened) connections, \(counters.connections) of them open at the end; mode \(present), "
            + "changed \(changes.toZeroByte) times to zero-byte and \(changes.toBuffered) back")
    terminal.say(
        "pages locked at the end: \(budget.locked), at most: \(budget.peak); waits: \(counters.reads.waits), "
            + "packets with bytes: \(counters.reads.reads)")
    terminal.claim("every page and every buffer is back", holds: isClean)
}

/// The same with several posted reads after each wait.
private func serve(
    _ choices: StreamHub.Options, _ options: Stage.Options, until interrupt: Interrupt, on terminal: Terminal
) throws {
    var choices = choices
    let receives = try ReadsAfterWait(reads: 3, connections: choices.maximumConnections)
    (choices.receives, choices.pendingReads) = (receives, 3)
    let hub = try StreamHub(choices)
    terminal.say("listening on \(try hub.listen(on: options.listenAddress) { _ in Echo() })")
    _ = interrupt.wait()
    let (counters, locked) = (hub.counters, receives.budget.counters)
    let isClean = hub.stop()
    terminal.say(
        "\(counters.opened) connections; pages locked at the end: \(locked.locked), at most: \(locked.peak); "
            + "waits: \(counters.reads.waits), packets with bytes: \(counters.reads.reads)")
    terminal.claim("every page is back", holds: isClean && receives.budget.counters.locked == 0)
}
