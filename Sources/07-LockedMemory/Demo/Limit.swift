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
    if let registered = report.registered {
        terminal.say(
            "buffers of a page registered with a ring: \(registered), and not one more; "
                + (report.isAlone
                    ? "the ring itself has \(report.ring)" : "this user's other rings count as well"))
    } else {
        terminal.say("(registered buffers left out: rings are not permitted here)")
    }
    terminal.claim("the system counts as the arithmetic does", holds: report.isAsPredicted)
}
