import AsyncAwait
import AsyncAwaitPitfalls
import Glibc
import Kernel
import Stage
import Timeline

/// The choices of the command line.
func serverOptions(_ options: Stage.Options) -> AsyncServer.Options {
    var choices = AsyncServer.Options()
    choices.hub.workers = options.workers ?? 2
    choices.hub.concurrency = options.concurrency ?? 0
    choices.hub.port.driver = options.driver
    // The tasks of an echo go from await to await, and none computes for long.
    choices.hub.port.submission = .afterBatch
    return choices
}

/// A server whose `run` is a task of another executor: there it is cancelled, and there it returns.
struct RunningServer: Sendable {
    let server: AsyncServer
    private let main: PortExecutor
    private let running: Started<Result<Void, SystemError>>

    init(_ server: AsyncServer) throws(SystemError) {
        let main = try PortExecutor()
        self.main = main
        self.server = server
        running = main.start { await Result { () async throws(SystemError) in try await server.run() } }
    }

    /// Cancels it, and waits for its end.
    func stop() throws(SystemError) {
        running.task.cancel()
        let result = running.value(on: main, within: .seconds(30))
        main.stop()
        try result?.get()
        if result == nil { throw SystemError(ETIMEDOUT, attempted: "end the server") }
    }

    /// What is there of it: tasks, connections, the memory of connections, chunks, awaited operations.
    var left: [Int] {
        let counters = server.executor.hub.counters
        return [
            server.counters.tasks, counters.connections, counters.alive, counters.chunks.inUse,
            server.executor.counters.awaited,
        ]
    }
}

/// `--serve PORT`: an echo server of tasks, until Ctrl-C or SIGTERM.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    let isRecorded = options.has(.svg) || options.has(.trace)
    if isRecorded { Recorder.start() }
    var choices = serverOptions(options)
    if let clients = options.clients { choices.hub.maximumConnections = clients }
    let running = try RunningServer(
        try AsyncServer(on: options.listenAddress, options: choices, AsyncEcho.service))
    terminal.say("listening on \(running.server.address)")
    _ = interrupt.wait()
    let tasks = running.server.counters.tasks
    try running.stop()
    if isRecorded {
        try options.save(
            Recorder.stop(), title: "The echo server of chapter 13",
            description: "What the server's operations and workers did while it was up.")
    }
    let counters = running.server.counters
    terminal.say(
        "tasks: \(tasks) at the end, \(counters.served) had returned, \(counters.failed) had failed; "
            + "jobs posted: \(readable(running.server.executor.counters.postedJobs))")
    terminal.claim("nothing is left of it", holds: running.left.allSatisfy { $0 == 0 })
}
