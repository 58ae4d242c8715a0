import CKernel
import Glibc
import Kernel

/// What this process takes of the machine, as the system counts it.
public enum OwnProcess {
    /// How many threads it has.
    public static var threads: Int { Int(fields(of: "/proc/self/stat", after: ")")[17]) ?? 0 }

    /// Bytes of memory that it holds. The system's own memory for it, such as a thread's second stack, is not in it.
    public static var residentBytes: Int {
        (Int(fields(of: "/proc/self/statm")[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }

    /// The time that processors have spent on it, in both of their modes.
    public static var processorTime: Duration {
        var usage = rusage()
        getrusage(RUSAGE_SELF.rawValue, &usage)
        let (user, system) = (usage.ru_utime, usage.ru_stime)
        return .seconds(user.tv_sec + system.tv_sec) + .microseconds(user.tv_usec + system.tv_usec)
    }

    /// The share of one processor that it uses while nobody does anything: measured over `time`.
    public static func idleShare(over time: Duration) -> Double {
        let (started, before) = (monotonicNanoseconds(), processorTime)
        // Waiting is what is measured here; nothing is waited for.
        Monitor.rest(until: .after(time))
        let elapsed = Duration.nanoseconds(Int64(monotonicNanoseconds() - started))
        return (processorTime - before) / elapsed
    }

    /// The words of a file of the system, from behind the last `mark` on.
    private static func fields(of path: String, after mark: Character? = nil) -> [Substring] {
        var buffer = [UInt8](repeating: 0, count: 1024)
        let file = ck_open(path, O_RDONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return [] }
        defer { close(file) }
        let text = String(decoding: buffer[..<max(0, read(file, &buffer, buffer.count))], as: UTF8.self)
        let start = mark.flatMap { text.lastIndex(of: $0) }.map(text.index(after:)) ?? text.startIndex
        return text[start...].split(whereSeparator: { $0 == " " || $0 == "\n" })
    }
}

extension Monitor {
    /// Blocks the calling thread until the deadline.
    fileprivate static func rest(until deadline: Deadline) {
        let monitor = Monitor()
        monitor.locked { while !deadline.hasPassed { monitor.wait(until: deadline) } }
    }
}
