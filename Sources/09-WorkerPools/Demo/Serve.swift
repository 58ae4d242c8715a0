import Kernel
import Stage
import Timeline
import WorkerPools

/// `--serve`: keeps the server up until Ctrl-C or SIGTERM. Lines for `nc`: hello, primes N, sleep MS, workers N, stats.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    if options.has(.trace) { Recorder.start() }
    // The terminal has a thread of its own; what the workers say is bounded before it, too.
    let messages = try MessageQueue { line in terminal.print(line) }
    var choices = JobServer.Options()
    choices.streams.workers = options.workers ?? 2
    choices.streams.concurrency = options.concurrency ?? 0
    choices.streams.port.driver = options.driver
    choices.logicalWorkers = options.number(logical) ?? 2
    choices.jobs = options.number(jobs) ?? 1_024
    choices.messages = messages
    let server = try JobServer(choices)
    let address = try server.listen(on: options.listenAddress)
    terminal.say("listening on \(address)")
    _ = interrupt.wait()
    let isBack = server.stop()
    let missing = messages.stop()
    if Recorder.isRecording { try options.saveTrace(Recorder.stop()) }
    terminal.say(server.pool.counters.description)
    terminal.say("messages: \(messages.counters.written) written, \(messages.counters.dropped) dropped")
    terminal.claim("everything is back, and everything was said", holds: isBack && missing == 0)
}

extension Stage.Options {
    /// `--trace`: the timeline. The picture of this chapter is another one.
    func saveTrace(_ recording: Recording) throws(SystemError) {
        if let path = value(.trace) { try writeFile(path, recording.trace(process: usage.program)) }
    }
}
