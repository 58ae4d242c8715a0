import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage

// A pitfall that is about how a program is started is played by this program again.
ClosedStandardDescriptor.playIfChild()

let usage = Usage(
    "01-async-events",
    "reads a file with 1, 4 and 16 requests in flight, and copies one with four reads and four writes.",
    options: [.driver, .svg, .trace, .plain],
    commands: [
        ("read", "FILE: read this file instead of a generated one"),
        ("copy", "SOURCE TARGET: copy a file of any size"),
    ],
    maximumArguments: 2, pitfalls: Chapter01.pitfalls)
let options = Options.ofThisProgram(usage)
let terminal = Terminal(options)

// Handles without a port share one driver, which is made when it is first needed: this is before that.
if let driver = options.value(.driver) { setenv("PORT_DRIVER", driver, 1) }

do {
    switch options.words.first {
    case _ where options.pitfall != nil:
        Pitfalls.play(options.pitfall!, from: Chapter01.pitfalls, driver: options.driver, on: terminal)
    case "copy":
        guard options.words.count == 3 else { refuse("\(usage.program): copy needs SOURCE and TARGET") }
        for option in [Option.svg, .trace] where options.has(option) {
            refuse(
                "\(usage.program): copy draws nothing, leave --\(option.name) out; read FILE --\(option.name) draws"
            )
        }
        try copy(from: options.words[1], to: options.words[2])
    case "read":
        guard options.words.count == 2 else { refuse("\(usage.program): read needs one FILE") }
        try measure(options.words[1])
        try showLanes(options.words[1])
    default:
        try tellStory()
    }
} catch {
    fail("\(usage.program): \(error)")
}
terminal.finish()
