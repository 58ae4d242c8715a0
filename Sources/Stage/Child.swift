import CKernel
import Glibc
import Kernel

/// A process that this one has started: its output is collected, and every wait for it is bounded.
///
/// Used by one thread at a time. A child that still runs when the last reference goes is killed.
public final class Child {
    /// How a child ended.
    public struct Ending: Sendable {
        /// The exit status; 128 and the signal's number if a signal ended it, as a shell counts.
        public let status: Int32
        /// Whether it did not end in time and was killed.
        public let timedOut: Bool
        /// What it wrote to its standard output.
        public let output: String
        /// What it wrote to its standard error output.
        public let errors: String

        /// The line of its errors that says why it ended: of a program that was ended by an uncaught error or a failed
        /// check, the message itself, and not what the runtime prints below it.
        public var lastWords: String? {
            let lines = errors.split(separator: "\n").map(String.init)
            return lines.first { $0.contains("Fatal error: ") } ?? lines.last
        }

        /// How it ended, in a sentence: `ended with status 1: …`, `was ended by signal 4 (Illegal instruction): …`.
        public var words: String {
            let how =
                timedOut
                ? "did not end in time"
                : status > 128
                    ? "was ended by signal \(status - 128) (\(String(cString: strsignal(status - 128))))"
                    : "ended with status \(status)"
            return how + (lastWords.map { ": \($0)" } ?? "")
        }
    }

    /// Of each of the two outputs this many bytes are kept; the rest is read and thrown away.
    public static let maximumOutput = 4 << 20

    /// The path of this program.
    public static let ownPath: String = {
        var path = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = path.withUnsafeMutableBytes {
            readlink("/proc/self/exe", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        return String(decoding: path.prefix(max(count, 0)), as: UTF8.self)
    }()

    /// The path of a product of this package, such as `bench`, if it has been built: it lies beside this program, or
    /// beside the bundle of tests that runs.
    public static func product(_ name: String) -> String? {
        for path in [ownPath] + CommandLine.arguments where path.contains("/") {
            let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(
                separator: "/")
            if access("\(folder)/\(name)", X_OK) == 0 { return "\(folder)/\(name)" }
        }
        return nil
    }

    /// Starts a program, lets it run to its end, and says how that was.
    /// - Throws: ENOENT and the like if it cannot be started.
    public static func run(
        _ executable: String, _ arguments: [String], environment: [String: String] = [:],
        within limit: Duration
    ) throws(SystemError) -> Ending {
        try Child(executable, arguments, environment: environment).wait(within: limit)
    }

    private let process: pid_t
    private var pipes: [Int32]  // output and errors; -1 when ended
    private var collected: [[UInt8]] = [[], []]
    private var status: Int32?

    /// Starts a program, with no input.
    /// - Parameters:
    ///   - executable: a path, not searched for.
    ///   - environment: variables in addition to those of this process, or instead of them.
    /// - Throws: ENOENT and the like if it cannot be started.
    public init(_ executable: String, _ arguments: [String], environment: [String: String] = [:])
        throws(SystemError)
    {
        // Socket pairs rather than pipes: they can be made so that no other child inherits them.
        var ends: [Int32] = [-1, -1, -1, -1]  // reading and writing end of the output, then of the errors
        for first in [0, 2] {
            let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
            let code = ends.withUnsafeMutableBufferPointer {
                socketpair(AF_UNIX, type, 0, $0.baseAddress! + first)
            }
            if code != 0 {
                let error = SystemError(errno, attempted: "make a pair of sockets")
                for end in ends where end >= 0 { close(end) }
                throw error
            }
        }
        pipes = [ends[0], ends[2]]
        var process = pid_t()
        let code = Child.spawn(&process, executable, arguments, environment, output: ends[1], errors: ends[3])
        close(ends[1])
        close(ends[3])
        self.process = process
        if code != 0 {
            close(ends[0])
            close(ends[2])
            status = 127
            pipes = [-1, -1]
            throw SystemError(code, attempted: "start \(executable)")
        }
        for pipe in pipes { _ = ck_fcntl(pipe, F_SETFL, O_NONBLOCK) }
    }

    deinit {
        for pipe in pipes where pipe >= 0 { close(pipe) }
        if status == nil {
            kill(process, SIGKILL)
            var status: Int32 = 0
            while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        }
    }

    /// What a descriptor of the child leads to, as the system names it: `/dev/null`, `socket:[…]`. Nil when it is closed.
    public func target(of descriptor: Int32) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            let count = readlink("/proc/\(process)/fd/\(descriptor)", buffer.baseAddress!, buffer.count)
            guard count >= 0 else { return nil }
            return String(decoding: buffer[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
        }
    }

    /// Sends the child a signal, such as `SIGTERM`, unless it has ended.
    public func send(signal: Int32) {
        if status == nil { kill(process, signal) }
    }

    /// Waits for a line of the child's standard output that begins with `start`.
    /// - Returns: the line, or `nil` if there was none in time or before the output's end.
    public func line(startingWith start: String, within limit: Duration) -> String? {
        let deadline = Deadline.after(limit)
        while true {
            let lines = String(decoding: collected[0], as: UTF8.self).split(
                separator: "\n", omittingEmptySubsequences: false)
            if let line = lines.dropLast().first(where: { $0.hasPrefix(start) }) { return String(line) }
            if deadline.hasPassed || pipes[0] < 0 { return nil }
            collect(for: min(deadline.remaining, 100_000_000))
        }
    }

    /// Waits for the child's end; kills it when the time is over.
    public func wait(within limit: Duration) -> Ending {
        let deadline = Deadline.after(limit)
        var timedOut = false
        while !hasEnded {
            if deadline.hasPassed && !timedOut {
                timedOut = true
                kill(process, SIGKILL)
            }
            // Once both outputs have ended there is nothing to wake us but the clock.
            if pipes == [-1, -1] { usleep(1_000) } else { collect(for: 5_000_000) }
        }
        // What was written last. A child of the child may hold the pipe open: it is not waited for.
        while pipes != [-1, -1], collect(for: 0) {}
        return Ending(
            status: status!, timedOut: timedOut, output: String(decoding: collected[0], as: UTF8.self),
            errors: String(decoding: collected[1], as: UTF8.self))
    }

    private var hasEnded: Bool {
        if status != nil { return true }
        var word: Int32 = 0
        guard waitpid(process, &word, WNOHANG) == process else { return false }
        let signal = word & 0x7f
        status = signal == 0 ? word >> 8 & 0xff : 128 + signal
        return true
    }

    /// Reads what there is, waiting up to some nanoseconds for it; says whether there was anything.
    @discardableResult
    private func collect(for nanoseconds: UInt64) -> Bool {
        var wishes = pipes.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        let ready = poll(&wishes, 2, Int32((nanoseconds + 999_999) / 1_000_000))
        if ready <= 0 { return false }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        for index in 0..<2 where wishes[index].revents != 0 {
            let count = read(pipes[index], &buffer, buffer.count)
            if count > 0 {
                let room = Child.maximumOutput - collected[index].count
                collected[index] += buffer.prefix(min(count, room))
            } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
                close(pipes[index])
                pipes[index] = -1
            }
        }
        return true
    }

    private static func spawn(
        _ process: inout pid_t, _ executable: String, _ arguments: [String], _ environment: [String: String],
        output: Int32, errors: Int32
    ) -> Int32 {
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&files, errors, STDERR_FILENO)

        // Blocked and ignored signals are inherited; a child is to begin like one started by a shell.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        for signal in [SIGPIPE, SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals, signal) }
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") }
        var own = environ
        while let variable = own.pointee {
            let name = String(cString: variable).prefix { $0 != "=" }
            if environment[String(name)] == nil { variables.append(strdup(variable)) }
            own += 1
        }
        let words = ([executable] + arguments).map { strdup($0) }
        defer { for text in words + variables { free(text) } }
        return posix_spawn(&process, executable, &files, &attributes, words + [nil], variables + [nil])
    }
}
