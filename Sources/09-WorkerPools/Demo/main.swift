import Glibc
import Kernel
import Stage
import WorkerPools
import WorkerPoolsPitfalls

let logical = Option.number("logical", in: 0...256, "how many logical workers there are (1; with --serve 2)")
let jobs = Option.number("jobs", in: 1...1_000_000, "how many jobs may wait (1024)")
let options = Stage.Options.ofThisProgram(
    Usage(
        "09-worker-pools",
        "Work that is no I/O leaves the port's workers, for a pool whose size may change at any time.",
        options: [
            .serve, .address, .workers, .concurrency, logical, jobs, .driver,
            .output("svg", "write the way of a question as a picture, with this run's numbers"), .trace,
            .plain,
        ],
        pitfalls: Chapter09.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter09.pitfalls, driver: options.driver, on: terminal)
    } else {
        try showComputation(options, on: terminal)
        try showLanes(options, on: terminal)
        try showResizing(on: terminal)
        try showPrinting(on: terminal)
        try showSums(options, on: terminal)
    }
} catch {
    fail("09-worker-pools: \(error)")
}
terminal.finish()
