import CompletionPorts
import Contexts
import ContextsPitfalls
import Glibc
import Kernel
import Stage
import Timeline

/// The server's choices, as the command line wants them.
private func serverOptions(_ options: Stage.Options) -> ContextServer.Options {
    var choices = ContextServer.Options()
    choices.workers = options.workers ?? 2
    choices.concurrency = options.concurrency ?? 0
    choices.port.driver = options.driver
    choices.port.pollBeforeSleep = options.poll
    return choices
}

/// `--serve`: keeps the echo server up until Ctrl-C or SIGTERM, and says what it has done.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    if options.has(.svg) || options.has(.trace) { Recorder.start() }
    var choices = serverOptions(options)
    choices.idleLimit = .seconds(60)
    let server = try ContextServer(on: options.listenAddress, options: choices)
    terminal.say("listening on \(server.address)")
    _ = interrupt.wait()
    let alive = server.table.counters.alive
    let isClean = server.stop()
    if Recorder.isRecording {
        try options.save(
            Recorder.stop(), title: "The echo server of chapter 04",
            description: "What the server's operations and workers did while it was up.")
    }
    let ledger = server.table.counters
    terminal.say("\(ledger.opened) connections; \(alive) of them open at the end; \(reasons(ledger))")
    terminal.claim("every context is released", holds: isClean && ledger.alive == 0)
}

/// The broken twin, in a child process: reported, not propagated.
func playBroken(_ clients: Int, _ driver: DriverKind, on terminal: Terminal) throws {
    terminal.heading("Broken: the first packet that tells of the end frees the context")
    terminal.say(
        "\(readable(clients)) clients, two receives pending for each. They leave at random. driver: \(driver)"
    )
    let ending = try CrashChild.run(driver, clients: clients)
    for line in ending.output.split(separator: "\n").suffix(1) { terminal.say("  the server: \(line)") }
    let isSignal = ending.status == 128 + SIGSEGV
    terminal.say("  the system: " + (isSignal ? "signal 11, SIGSEGV" : "status \(ending.status)"))
    terminal.claim(
        "the server touched freed memory and was ended for it", holds: CrashChild.diedOfTouch(ending))
}

/// The right one: the same clients, and besides them somebody who closes, cancels and sends to all.
func playRight(_ clients: Int, _ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Right: a pending operation holds a reference to its connection")
    let announced = Counter()
    let server = try ContextServer(options: serverOptions(options)) { _, _ in announced.add() }
    let table = server.table
    let start = monotonicNanoseconds()
    let report = LeavingClients(
        to: server.address, count: clients, threads: 4, together: (clients + 3) / 4
    ).run { time in
        if let anybody = table.registry.snapshot().first {
            if time % 2 == 0 { anybody.cancel() } else { anybody.close() }
        }
        if time % 8 == 0 { table.pushAll([LeavingClients.push]) }
    }
    // The last may have left before the server has heard of them.
    _ = eventually { table.counters.opened == report.connected }
    let isClean = server.stop()
    let time = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
    let ledger = table.counters
    let contexts = table.contexts.counters
    terminal.say("\(readable(report.connected)) clients in \(readable(time)); \(reasons(ledger))")
    terminal.say()
    terminal.table(
        ["counter", "highest", "now"],
        [
            ["connections alive", "\(ledger.peak)", "\(ledger.alive)"],
            ["contexts in use", "\(contexts.peak)", "\(contexts.inUse)"],
            ["contexts kept for reuse", "", "\(contexts.free)"],
            ["ends not announced", "", "\(ledger.opened - ledger.announced)"],
            ["ends announced again", "", "\(announced.value - ledger.opened)"],
            ["strange bytes heard", "", "\(report.strange)"],
            ["answers missing", "", "\(report.missing)"],
        ])
    terminal.say()
    terminal.claim(
        "\(readable(ledger.opened)) connections, each announced once and released once",
        holds: isClean && ledger.opened == report.connected && ledger.announced == ledger.opened
            && ledger.released == ledger.opened && announced.value == ledger.opened)
    terminal.claim("no context is in use", holds: contexts.inUse == 0)
    terminal.claim(
        "no client heard a stranger's byte, and no answer is missing",
        holds: report.strange == 0 && report.missing == 0)
}

/// Some clients that leave, drawn: a lane for each worker, and the lives of the operations.
func showLives(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Six clients that leave, drawn")
    // Before the server, so that its accepts are known by their names.
    Recorder.start()
    let server = try ContextServer(options: serverOptions(options))
    let report = LeavingClients(
        to: server.address, count: 6, threads: 2, together: 3,
        ways: [.silently, .withoutAnswer, .afterAnswer, .withReset]
    ).run()
    _ = eventually { server.table.counters.opened == report.connected }
    let isClean = server.stop()
    let recording = Recorder.stop()
    terminal.draw(recording)
    terminal.claim("six clients came and left", holds: report.connected == 6 && isClean)
    try options.save(
        recording, title: "Clients that leave while operations are pending",
        description: "Every operation that was posted is handled, also those whose client has gone.")
}

/// What a count by hand and a count by references cost.
func showCost(on terminal: Terminal) {
    terminal.heading("What the count costs")
    let rounds = 1_000_000
    let counted = CountedContext()
    let (byHand, byHandShared) = (
        time(rounds, threads: 1) { if counted.enter() { _ = counted.leave() } },
        time(rounds, threads: 2) { if counted.enter() { _ = counted.leave() } }
    )
    let reference = Unmanaged.passUnretained(counted)
    let (byReference, byReferenceShared) = (
        time(rounds, threads: 1) { reference.retain().release() },
        time(rounds, threads: 2) { reference.retain().release() }
    )
    terminal.table(
        ["up and down once, ns", "one thread", "two threads, one context"],
        [
            ["a number under a lock", readable(byHand), readable(byHandShared)],
            ["a reference", readable(byReference), readable(byReferenceShared)],
        ])
    withExtendedLifetime(counted) {}
}

private func time(_ rounds: Int, threads: Int, _ body: @escaping @Sendable () -> Void) -> Double {
    let start = monotonicNanoseconds()
    inThreads(threads) { _ in for _ in 0..<rounds { body() } }
    return Double(monotonicNanoseconds() - start) / Double(rounds)
}

private func reasons(_ ledger: ConnectionCounters) -> String {
    ledger.reasons.sorted { $0.value > $1.value }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
}
