import Framing
import Glibc
import Kernel
import Stage
import ThreadPoolIO
import Timeline
import WorkerPools

/// `--serve PORT`: shows what clients say, and sends what is typed to all of them, until `Exit` or a signal.
///
/// No thread of the pool writes to the screen, which may block for as long as its reader likes: lines go through chapter
/// 09's queue to a thread of their own, and when that is full the oldest is dropped and counted.
func serve(_ options: Stage.Options, on terminal: Terminal) throws {
    let interrupt = Interrupt()
    let isRecorded = options.has(.svg) || options.has(.trace)
    if isRecorded { Recorder.start() }
    let screen = try MessageQueue { line in terminal.say(String(line.dropLast())) }
    var choices = PoolServer.Options()
    choices.pool = poolOptions(options)
    if let clients = options.clients { choices.maximumConnections = clients }
    let server = try PoolServer(on: options.listenAddress, options: choices) { report in
        switch report {
        case .connected(let address): screen.say("\(address.port): connected")
        // Shown with care: what a client sends could steer a terminal.
        case .line(let line, let address):
            screen.say("\(address.port), \(line.count) bytes: \(line.span.bytes.printable)")
        case .tooLong(let address): screen.say("\(address.port): a line that is too long; disconnecting")
        case .disconnected(let address, nil): screen.say("\(address.port): disconnected")
        case .disconnected(let address, let error?): screen.say("\(address.port): disconnected, \(error)")
        }
    }
    screen.say("listening on \(server.address)")
    // Reads lines until the input ends or says `Exit`. That thread may sleep in a read for ever, so it is not waited for.
    _ = startThread("typing") {
        while let line = readLine() {
            if line == "Exit" {
                kill(getpid(), SIGTERM)
                return
            }
            let count = server.sendToAll(Array(line.utf8))
            screen.say("sent to \(count) client\(count == 1 ? "" : "s")")
        }
    }
    _ = interrupt.wait()
    let open = server.counters.connections
    try server.stop()
    let counters = server.counters
    screen.say(
        "clients: \(counters.accepted), refused: \(counters.refused), open at the end: \(open); lines: \(counters.lines)"
    )
    let missing = screen.stop()
    if isRecorded {
        try options.save(
            Recorder.stop(), title: "The server of chapter 10",
            description: "What the pool's threads did while the server was up.")
    }
    let left = server.pool.counters
    terminal.claim("no thread and no client is left", holds: left.threads == 0 && counters.connections == 0)
    if missing > 0 { terminal.say("\(missing) lines were not shown: the screen takes nothing") }
}
