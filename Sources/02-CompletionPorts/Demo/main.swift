import CompletionPorts
import CompletionPortsPitfalls
import Kernel
import Stage

let options = Stage.Options.ofThisProgram(
    Usage(
        "02-completion-ports",
        "who is woken at a port, what happens when a worker blocks, and an echo server on one port.",
        options: [
            .serve, .address, .workers, .concurrency, .poll, .driver, .clients, .seconds, .svg, .trace,
            .plain,
        ],
        pitfalls: Chapter02.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter02.pitfalls, driver: options.driver, on: terminal)
    } else {
        try NineSteps(driver: options.driver).play(on: terminal, saving: options)
        try playBlockedWorker(driver: options.driver, on: terminal)
        try playEchoServer(options, on: terminal)
    }
} catch {
    fail("02-completion-ports: \(error)")
}
terminal.finish()
