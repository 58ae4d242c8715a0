import AsyncEvents
import Glibc
import Kernel
import Stage

/// Copies a file, with a line of progress on a terminal.
func copy(from source: String, to target: String) throws {
    let copy = try FileCopy(from: source, to: target)
    let start = monotonicNanoseconds()
    var shown = start
    defer { terminal.status(nil) }
    let bytes = try copy.run { done, total in
        let now = monotonicNanoseconds()
        guard now - shown > 100_000_000 else { return }
        shown = now
        let percent = done * 100 / max(total, 1)
        terminal.status("\(percent) %  \(megabytes(done)) of \(megabytes(total)) MB")
    }
    terminal.status(nil)
    let elapsed = monotonicNanoseconds() - start
    terminal.say(
        "copied \(bytes) bytes in \(milliseconds(elapsed)) ms, \(rate(bytes, elapsed)) MB/s, with "
            + "\(FileCopy.standardInFlight) reads and \(FileCopy.standardInFlight) writes in flight")
    terminal.claim("the target is as long as the source", holds: try File(target).size == bytes)
}

/// Millions of bytes, with one digit behind the point.
func megabytes(_ bytes: Int64) -> String { tenths(Double(bytes) / 1_000_000) }

/// Milliseconds, with one digit behind the point.
func milliseconds(_ nanoseconds: UInt64) -> String { tenths(Double(nanoseconds) / 1_000_000) }

/// Millions of bytes per second.
func rate(_ bytes: Int64, _ nanoseconds: UInt64) -> String {
    String(Int((Double(bytes) * 1_000 / Double(max(nanoseconds, 1))).rounded()))
}

private func tenths(_ value: Double) -> String {
    let all = Int((value * 10).rounded())
    return "\(all / 10).\(all % 10)"
}
