import Contexts
import Kernel
import Reordering
import Stage
import Timeline

/// `--serve`: keeps an echo server up until Ctrl-C or SIGTERM, and says what it has done.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    if options.has(.svg) || options.has(.trace) { Recorder.start() }
    var choices = StreamHub.Options()
    choices.workers = options.workers ?? 2
    choices.concurrency = options.concurrency ?? 0
    choices.pendingReads = options.number(reads) ?? 3
    choices.port.driver = options.driver
    choices.port.pollBeforeSleep = options.poll
    // The handler posts a send and returns: so a worker may take several packets at a time, and hand over what it has
    // posted when it has handled them.
    choices.batch = 16
    choices.port.submission = .afterBatch
    let hub = try StreamHub(choices)
    let address = try hub.listen(on: options.listenAddress) { _ in Echo() }
    terminal.say("listening on \(address)")
    _ = interrupt.wait()
    let open = hub.connections.count
    let isClean = hub.stop()
    if Recorder.isRecording {
        try options.save(
            Recorder.stop(), title: "The echo server of chapter 05",
            description: "What the server's operations and workers did while it was up.")
    }
    let counters = hub.counters
    let reasons = counters.reasons.sorted { $0.value > $1.value }.map { "\($0.value) \($0.key)" }
    terminal.say(
        "\(counters.opened) connections; \(open) of them open at the end; "
            + (reasons.isEmpty ? "no end" : reasons.joined(separator: ", ")))
    terminal.say(
        "chunks that came before an earlier one: \(readable(counters.window.early)); "
            + "in one window at most: \(counters.window.mostWaiting)")
    terminal.claim("every chunk is back in the pool", holds: isClean && counters.chunks.inUse == 0)
}
