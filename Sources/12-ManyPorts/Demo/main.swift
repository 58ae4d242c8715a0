import Kernel
import ManyPorts
import ManyPortsPitfalls
import Stage

let portCount = Option.number(
    "ports", in: 1...64, "how many ports there are (2; with --serve one for each processor)")
let placement = Option.choice(
    "placement", Placement.allCases.map(\.rawValue), "which port gets a new connection (round-robin)")
let balance = Option.choice(
    "balance", ["even", "segregated", "off"],
    "which connections are moved (both, one after the other; with --serve even)")
let picture = Option.choice("picture", ["ports", "move"], "which picture --svg writes (ports)")
let options = Stage.Options.ofThisProgram(
    Usage(
        "12-many-ports",
        "Several ports with a worker each; connections are spread over them by what they say, and moved.",
        options: [
            .serve, .address, portCount, .workers, placement, balance, .driver, .svg, picture, .trace, .plain,
        ],
        pitfalls: Chapter12.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter12.pitfalls, driver: options.driver, on: terminal)
    } else {
        try showBalancing(options, on: terminal)
        try showMove(options, on: terminal)
        try showMoves(options, on: terminal)
        try showOrder(options, on: terminal)
    }
} catch {
    fail("12-many-ports: \(error)")
}
terminal.finish()
