import Glibc
import OneThreadPerClientPitfalls
import Stage
let options = Options.ofThisProgram(
    Usage("00", "x", options: [.plain, .driver], pitfalls: Chapter00.pitfalls))
let terminal = Terminal(plain: options.plain)
for p in Chapter00.pitfalls {
    Pitfalls.play(p.slug, from: Chapter00.pitfalls, driver: options.driver, on: terminal)
}
terminal.finish()
