import CKernel
import Glibc
import Kernel
import Stage

// Measures in one process tree, in several rounds that take turns, and prints medians with their spread. Absolute
// figures belong to one machine on one day; what is worth quoting are the ratios, taken round by round.

let parts: [(name: String, help: String)] = [
    ("all", "everything below, in turn"),
    ("packets", "packets through the port, on one thread and between threads"),
    ("echo", "echo round trips with 1, 64, 1,000 and 10,000 connections"),
    ("echo-1", "one connection only"),
    ("echo-64", "64 connections only"),
    ("echo-1000", "1,000 connections only"),
    ("echo-10000", "10,000 connections only"),
    ("connections", "connect, one message, close: preposted accepts beside a plain accept loop"),
    ("computing", "two workers against one, with 50 µs of computing for each packet"),
    ("framing", "framed echo beside raw echo, with 1 and with 8 messages at a time"),
    ("files", "several reads in flight beside plain reads"),
    ("reordering", "1, 4 and 8 pending reads with 1, 2 and 4 workers, small and large messages"),
    ("reordering-64", "64 bytes and one worker only"),
    ("read-sizes", "streams: reads of 1 to 256 KiB, and reads that follow the load"),
    ("locked-memory", "receives with a buffer, without one, and adaptive: 64 bytes, 4 KiB and 64 KiB"),
    ("file-transfer", "one large file: chapter 08's exchange beside a plain loop of sendfile"),
    ("worker-pools", "whom a computation holds up, a second logical worker, and what a job costs"),
    ("thread-pool", "chapter 10: jobs beside a plain pool, and how punctual 10,000 timers are"),
    (
        "servers",
        "chapter 11: honest clients beside those who are not, and 64 connections among 15,000 idle ones"
    ),
    (
        "many-ports",
        "chapter 12: one port and several with as many workers, one listener and one for each port"
    ),
    (
        "async-await",
        "chapter 13: the same echo as a handler and as a task, with 64 and with 1,000 connections"
    ),
    (
        "stress",
        "what is too heavy for the tests, with a verdict: "
            + "stress [\(Stress.all.map(\.name).joined(separator: "|"))]"
    ),
]
let rounds = Option.number("rounds", in: 1...100, "how often everything is measured, in turn (5)")
let json = Option.output("json", "also write every figure to a file")
let options = Options.ofThisProgram(
    Usage(
        "-c release bench", "measures the port, the servers on it, and what they are to be compared with",
        options: [rounds, .seconds, json, .plain], commands: parts, maximumArguments: 1))
let terminal = Terminal(options)
let part = options.words.first ?? "all"
let perLoad = options.value(.seconds).flatMap(Double.init) ?? 1

Resources.raiseDescriptorLimit()

if part == "stress" {
    exit(Stress.run(options.words.dropFirst().first, for: options.seconds, terminal))
}

let connections = [1, 64, 1_000, 10_000].filter { ["all", "echo", "echo-\($0)"].contains(part) }
var figures = Figures()
do {
    for round in 1...(options.number(rounds) ?? 5) {
        terminal.say("round \(round)")
        if part == "all" || part == "packets" { try Packets.measure(into: &figures) }
        for count in connections { try Echo.measure(count, seconds: perLoad, into: &figures) }
        if part == "all" || part == "connections" {
            try Connections.measure(seconds: perLoad, into: &figures)
        }
        if part == "all" || part == "computing" { try Computing.measure(seconds: perLoad, into: &figures) }
        if part == "all" || part == "framing" {
            try FramedEchoes.measure(seconds: perLoad, into: &figures)
        }
        if part == "all" || part == "locked-memory" {
            try ReceiveModes.measure(seconds: perLoad, into: &figures)
        }
        if part == "all" || part == "worker-pools" {
            try WorkerPoolFigures.measure(seconds: perLoad, into: &figures)
        }
        if part == "all" || part == "files" { try FileReads.measure(into: &figures) }
        if part == "all" || part == "file-transfer" { try FileTransfers.measure(into: &figures) }
        if part == "all" || part == "thread-pool" { try Pools.measure(into: &figures) }
        if part == "all" || part == "servers" { try ServerFigures.measure(seconds: perLoad, into: &figures) }
        if part == "all" || part == "many-ports" { try PortFigures.measure(seconds: perLoad, into: &figures) }
        if part == "all" || part == "async-await" {
            try AsyncEchoes.measure(seconds: perLoad, into: &figures)
        }
        if part == "all" || part == "read-sizes" { try ReadSizes.measure(seconds: perLoad, into: &figures) }
        if part == "all" || part.hasPrefix("reordering") {
            try PendingReads.measure(seconds: perLoad, isShort: part == "reordering-64", into: &figures)
        }
    }
} catch {
    refuse("bench: \(error)")
}
Packets.compare(&figures)
for count in connections { Echo.compare(&figures, count) }
Connections.compare(&figures)
Computing.compare(&figures)
FramedEchoes.compare(&figures)
FileReads.compare(&figures)
FileTransfers.compare(&figures)
Pools.compare(&figures)
PendingReads.compare(&figures)
ReadSizes.compare(&figures)
ReceiveModes.compare(&figures)
WorkerPoolFigures.compare(&figures)
ServerFigures.compare(&figures)
PortFigures.compare(&figures)
AsyncEchoes.compare(&figures)

terminal.heading("Medians")
terminal.table(["what", "median", "unit", "spread"], figures.rows())
terminal.heading("Ratios, round by round")
terminal.table(["what", "median", "is to be", ""], figures.ratioRows())
if let path = options.value(json) {
    do { try writeFile(path, figures.json()) } catch { refuse("bench: \(error)") }
}
terminal.finish()
