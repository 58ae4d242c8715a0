import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage

let options = Stage.Options.ofThisProgram(
    Usage(
        "03-preposted-accepts",
        "a burst of clients against a pool of ten accepts, and an attack of silent ones, with and without the sweep.",
        options: [
            .serve, .address, .workers, .concurrency, .driver, .clients, .seconds, .svg, .trace, .plain,
        ],
        pitfalls: Chapter03.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter03.pitfalls, driver: options.driver, on: terminal)
    } else {
        try playThreeClients(options, on: terminal)
        try playBurst(options, on: terminal)
        try playAttack(options, on: terminal)
    }
} catch {
    fail("03-preposted-accepts: \(error)")
}
terminal.finish()
