import Contexts
import ContextsPitfalls
import Glibc
import Kernel
import Stage

// The broken twin, and a server that a test stops, run in a process of their own, which is this program again.
CrashChild.runIfAsked()
StoppableServer.runIfAsked()

let options = Stage.Options.ofThisProgram(
    Usage(
        "04-contexts",
        "1,000 clients leave at random: one server touches freed memory, the other is left with nothing.",
        options: [.serve, .address, .workers, .concurrency, .poll, .driver, .clients, .svg, .trace, .plain],
        pitfalls: Chapter04.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter04.pitfalls, driver: options.driver, on: terminal)
    } else {
        let clients = Stage.Resources.clientsThatFit(options.clients ?? 1_000, descriptorsEach: 2)
        try playBroken(clients, options.driver, on: terminal)
        try playRight(clients, options, on: terminal)
        try showLives(options, on: terminal)
        showCost(on: terminal)
    }
} catch {
    fail("04-contexts: \(error)")
}
terminal.finish()
