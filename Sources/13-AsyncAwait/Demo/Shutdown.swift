import AsyncAwait
import AsyncAwaitPitfalls
import Glibc
import Kernel
import Stage

/// A server is cancelled while clients come, talk and leave.
func playShutdown(_ options: Stage.Options, on terminal: Terminal) throws {
    let (times, clients) = (5, min(options.clients ?? 100, 1_000))
    terminal.heading("A shutdown under load, \(times) times, with \(clients) clients each")
    terminal.say("Each client is a child task. The task that runs the server is cancelled while they talk;")
    terminal.say("when it returns, its tree of tasks is empty.")
    terminal.say()
    var (served, longest, isEmpty) = (0, Duration.zero, true)
    for time in 1...times {
        var choices = serverOptions(options)
        (choices.grace, choices.lingering) = (.milliseconds(100), .milliseconds(100))
        let running = try RunningServer(try AsyncServer(options: choices, AsyncEcho.service))
        let address = running.server.address
        let load = startThread("clients") {
            _ = LeavingClients(
                to: address, count: clients, threads: 2,
                ways: [.inOrder, .midMessage, .withReset, .afterAnswer],
                seed: UInt64(time)
            ).run()
        }
        _ = eventually { running.server.counters.served + running.server.counters.failed > clients / 4 }
        let start = monotonicNanoseconds()
        try running.stop()
        longest = max(longest, .nanoseconds(Int64(monotonicNanoseconds() - start)))
        let counters = running.server.counters
        served += counters.served + counters.failed
        isEmpty =
            isEmpty && running.left.allSatisfy { $0 == 0 } && running.server.executor.counters.strayJobs == 0
        load.join()
        terminal.status("\(time) of \(times)")
    }
    terminal.status(nil)
    terminal.table(
        ["ended", "tasks that there were", "longest end", "left"],
        [["\(times)", "\(served)", readable(longest), isEmpty ? "nothing" : "something"]])
    terminal.say()
    terminal.claim(
        "tasks, connections, their memory, chunks, operations: every counter is at zero",
        holds: isEmpty && served > 0)
}
