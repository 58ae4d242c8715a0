import CKernel
import Glibc
import Kernel
import Stage

/// What this process does while nobody asks anything of it.
public enum Idle {
    /// The share of one processor that this process uses over some time: 1 for a thread that never rests.
    ///
    /// Other processes run on this machine, too. The time in which a thread wanted a processor and had to wait for
    /// one is not counted, so that a busy machine does not look like a quiet process.
    public static func share(over time: Duration) -> Double {
        let waited = waitedForProcessor
        let (used, started) = (processorTime, monotonicNanoseconds())
        // Nothing opens this gate: the time itself is what is wanted.
        Gate().pass(within: time)
        let more = processorTime - used
        let elapsed = Duration.nanoseconds(Int64(monotonicNanoseconds() - started))
        return more / max(elapsed - (waitedForProcessor - waited), more, .milliseconds(1))
    }

    /// The share, measured until it is clear, five times at most.
    public static func share(over time: Duration, until isClear: (Double) -> Bool) -> Double {
        var share = share(over: time)
        for _ in 0..<4 where !isClear(share) { share = self.share(over: time) }
        return share
    }

    /// The time that processors have spent on this process, in both of their modes.
    private static var processorTime: Duration {
        var usage = rusage()
        getrusage(RUSAGE_SELF.rawValue, &usage)
        let (user, system) = (usage.ru_utime, usage.ru_stime)
        return .seconds(user.tv_sec + system.tv_sec) + .microseconds(user.tv_usec + system.tv_usec)
    }

    /// The time that all threads together have waited for a processor. 0 where the system does not tell.
    private static var waitedForProcessor: Duration {
        guard let folder = opendir("/proc/self/task") else { return .zero }
        defer { closedir(folder) }
        var sum = 0
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            let file = ck_open("/proc/self/task/\(name)/schedstat", O_RDONLY | O_CLOEXEC, 0)
            if file < 0 { continue }
            defer { close(file) }
            var buffer = [UInt8](repeating: 0, count: 128)
            let text = String(decoding: buffer[..<max(0, read(file, &buffer, buffer.count))], as: UTF8.self)
            // Nanoseconds that it ran, nanoseconds that it waited, how often.
            sum += text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        }
        return .nanoseconds(sum)
    }
}
