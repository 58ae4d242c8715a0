import Glibc
import Kernel
import Stage
import ThreadPoolIO
import ThreadPoolIOPitfalls

// The broken twins run in a process of their own, which is this program again.
ownProcess.runIfAsked()

let options = Stage.Options.ofThisProgram(
    Usage(
        "10-thread-pool-io",
        "four kinds of task on threads that come with the work, blocked callbacks, and a server that ends well.",
        options: [.serve, .address, .driver, .clients, .svg, .trace, .plain],
        pitfalls: Chapter10.pitfalls))
let terminal = Terminal(plain: options.plain)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter10.pitfalls, driver: options.driver, on: terminal)
    } else {
        try playFourTasks(options, on: terminal)
        try playBlockedCallbacks(options, on: terminal)
        try playEnds(options, on: terminal)
    }
} catch {
    _ = "10-thread-pool-io: \(error)\n".withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(1)
}
terminal.finish()
