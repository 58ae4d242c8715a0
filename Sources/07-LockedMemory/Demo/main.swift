import Glibc
import Kernel
import LockedMemory
import LockedMemoryPitfalls
import Stage

// The idle clients, the server in each mode, and the process that the system's own limit binds: all are this program
// again.
IdleClients.runIfAsked()
SystemLimit.runIfAsked()
showModeIfAsked()

let mode = Stage.Option.choice(
    "mode", ["buffered", "zero-byte", "adaptive", "mixed", "reads-after-wait"],
    "how --serve waits for bytes (adaptive)")
let options = Stage.Options.ofThisProgram(
    Usage(
        "07-locked-memory",
        "10,000 idle connections in four modes: the pages they lock, and what the busy ones pay.",
        options: [
            .serve, mode, .address, .workers, .concurrency, .poll, .driver, .clients, .svg, .trace, .plain,
        ],
        pitfalls: Chapter07.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, options.value(mode), on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter07.pitfalls, driver: options.driver, on: terminal)
    } else {
        try playModes(options, on: terminal)
        try showLimit(options.driver, on: terminal)
        try showOtherWays(options, on: terminal)
        try drawChange(options, on: terminal)
    }
} catch {
    fail("07-locked-memory: \(error)")
}
terminal.finish()
