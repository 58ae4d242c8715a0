import FileTransfer
import FileTransferPitfalls
import Glibc
import Kernel
import Stage

DiskFull.playIfChild()
let options = Stage.Options.ofThisProgram(
    Usage("08-file-transfer", "x", options: [.driver, .plain], pitfalls: Chapter08.pitfalls))
let terminal = Terminal(plain: options.plain)
if let slug = options.pitfall {
    Pitfalls.play(slug, from: Chapter08.pitfalls, driver: options.driver, on: terminal)
}
terminal.finish()
