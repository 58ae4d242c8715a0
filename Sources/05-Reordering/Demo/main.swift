import Glibc
import Kernel
import Reordering
import ReorderingPitfalls
import Stage

let options = Stage.Options.ofThisProgram(
    Usage(
        "05-reordering", "The bytes of one stream, read by two workers: with numbers, and without.",
        options: [.serve, .address, .workers, .concurrency, .driver, .svg, .trace, .plain],
        pitfalls: Chapter05.pitfalls))
let terminal = Terminal(plain: options.plain)
if let slug = options.pitfall {
    Pitfalls.play(slug, from: Chapter05.pitfalls, driver: options.driver, on: terminal)
}
terminal.finish()
