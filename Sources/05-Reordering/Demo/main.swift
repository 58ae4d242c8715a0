import Glibc
import Kernel
import Reordering
import ReorderingPitfalls
import Stage

let reads = Option.number("reads", in: 1...64, "how many reads each connection has pending (3)")
let numbers = Option.choice(
    "numbers", ["with", "without"], "which of the two timelines --svg and --trace write (with)")
let options = Stage.Options.ofThisProgram(
    Usage(
        "05-reordering", "The bytes of one stream, read by two workers: without numbers, and with them.",
        options: [
            .serve, .address, .workers, .concurrency, .poll, reads, .driver, numbers, .svg, .trace, .plain,
        ],
        pitfalls: Chapter05.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter05.pitfalls, driver: options.driver, on: terminal)
    } else {
        try showSwap(isOrdered: false, options, on: terminal)
        try showSwap(isOrdered: true, options, on: terminal)
        try showStream(options, on: terminal)
        try showAnswers(options, on: terminal)
        try showPackets(options, on: terminal)
        try showPendingReads(options, on: terminal)
    }
} catch {
    fail("05-reordering: \(error)")
}
terminal.finish()
