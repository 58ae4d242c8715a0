import AsyncAwait
import AsyncAwaitPitfalls
import Glibc
import Kernel
import Stage

// Some of the broken twins run in a process of their own, which is this program again.
ownProcess.runIfAsked()

let options = Stage.Options.ofThisProgram(
    Usage(
        "13-async-await",
        "one echo server in three forms, a cancelled task whose byte is not lost, and a shutdown under load.",
        options: [.serve, .address, .workers, .concurrency, .driver, .clients, .svg, .trace, .plain],
        pitfalls: Chapter13.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter13.pitfalls, driver: options.driver, on: terminal)
    } else {
        try playThreeForms(options, on: terminal)
        try playCancel(options, on: terminal)
        try playShutdown(options, on: terminal)
    }
} catch {
    fail("13-async-await: \(error)")
}
terminal.finish()
