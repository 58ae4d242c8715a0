import Kernel
import LockedMemory
import LockedMemoryPitfalls
import Stage

/// The system's own limit, in a process that it binds.
func showLimit(_ driver: DriverKind, on terminal: Terminal) throws {
    terminal.heading("The system's own budget: RLIMIT_MEMLOCK, set to \(SystemLimit.pages) pages")
    guard SystemLimit.canBeShown else {
        terminal.say("(left out: this process may not lower its rights, or may lock nothing at all)")
        return
    }
    let report = try SystemLimit.show(driver)
    terminal.say(
        "receives with a buffer posted: \(report.posted), locked by the system: \(report.locked) pages")
    terminal.say("the next one: \(SystemError.text(report.error))")
    terminal.say(
        "zero-byte receives posted: \(report.zeroByte.posted), locked by the system: \(report.zeroByte.locked) pages"
    )
    terminal.say("ten bytes that straddle a boundary: \(report.straddling) pages")
    terminal.say(
        report.registered.map {
            "buffers of a page registered with a ring: \($0), and not one more; the ring itself has \(report.ring)"
        }
            ?? "(registered buffers left out: rings are not permitted here)")
    terminal.claim("the system counts as the arithmetic does", holds: report.isAsPredicted)
}
