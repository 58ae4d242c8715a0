import AsyncAwait
import AsyncAwaitPitfalls
import CompletionPorts
import Glibc
import Kernel
import Reordering
import Stage

/// The same server, written three times.
private struct Form {
    let name: String
    /// Starts it: its address, the jobs that its port has carried so far, and what stops it.
    let start: () throws -> (Address, () -> Int, () throws -> Void)
}

/// Chapter 02's handler of packets, chapter 05's handler of a stream, this chapter's task: under the same load.
func playThreeForms(_ options: Stage.Options, on terminal: Terminal) throws {
    let clients = Resources.clientsThatFit(options.clients ?? 64, descriptorsEach: 2)
    terminal.heading("One echo server in three forms, with \(counted(clients, "client")) each")
    terminal.say("Messages of 64 bytes, one under way per client. driver: \(options.driver)")
    terminal.say()
    var rows: [[String]] = []
    var (isWhole, jobsOfTasks, trips) = (true, 0, 1)
    for form in forms(options) {
        let (address, jobs, stop) = try form.start()
        let used = Resources.processTime
        let report = try ClientLoad(
            to: address, connections: clients, duration: .seconds(60),
            roundTripsEach: max(4, 16_000 / clients)
        ).run()
        let own = Resources.processTime - used - report.processorTime
        (jobsOfTasks, trips) = (jobs(), max(1, report.roundTrips))
        try stop()
        isWhole = isWhole && report.silent == 0 && report.roundTrips == clients * max(4, 16_000 / clients)
        rows.append([
            form.name, readable(Int(report.perSecond)), readable(report.latency.percentile(50)),
            readable(own / trips), readable(jobsOfTasks),
        ])
    }
    terminal.table(["a client is", "round trips/s", "median", "server's time each", "jobs posted"], rows)
    terminal.say()
    terminal.claim("every byte came back, in each form", holds: isWhole)
    terminal.claim(
        "a task's round trip needs no packet of its own: fewer jobs than one for 100 round trips",
        holds: jobsOfTasks * 100 < trips + 100 * 3 * clients)
}

private func forms(_ options: Stage.Options) -> [Form] {
    let (workers, concurrency) = (options.workers ?? 1, options.concurrency ?? 1)
    return [
        Form(name: "a packet (02)") {
            var choices = EchoServer.Options()
            (choices.workers, choices.concurrency, choices.port.driver) = (
                workers, concurrency, options.driver
            )
            let server = try EchoServer(options: choices)
            return (server.address, { 0 }, { server.stop() })
        },
        Form(name: "a handler (05)") {
            var choices = StreamHub.Options()
            (choices.workers, choices.concurrency, choices.port.driver) = (
                workers, concurrency, options.driver
            )
            let hub = try StreamHub(choices)
            return (try hub.listen { _ in Echo() }, { 0 }, { hub.stop() })
        },
        Form(name: "a task (13)") {
            var choices = serverOptions(options)
            (choices.hub.workers, choices.hub.concurrency) = (workers, concurrency)
            let running = try RunningServer(try AsyncServer(options: choices, AsyncEcho.service))
            return (
                running.server.address, { running.server.executor.counters.postedJobs },
                { try running.stop() }
            )
        },
    ]
}
