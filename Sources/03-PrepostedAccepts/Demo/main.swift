import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage

let options = Options.ofThisProgram(
    Usage("03-preposted-accepts", "x", options: [.driver, .plain], pitfalls: Chapter03.pitfalls))
let terminal = Terminal(plain: options.plain)
if let slug = options.pitfall {
    Pitfalls.play(slug, from: Chapter03.pitfalls, driver: options.driver, on: terminal)
    terminal.finish()
}
for p in Chapter03.pitfalls {
    Pitfalls.play(p.slug, from: Chapter03.pitfalls, driver: options.driver, on: terminal)
}
terminal.finish()
