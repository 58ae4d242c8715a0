@preconcurrency import Glibc

/// How a program came to its end.
enum Ending: Equatable, Sendable {
    /// It ended by itself with this status.
    case exited(Int32)
    /// A signal ended it.
    case signalled(Int32)
    /// It did not end in time, and was stopped with everything that it had started.
    case tooLong
    /// The reader wants no more: this signal came for the tour, which has passed it on.
    case interrupted(Int32)
    /// It could not be started; the system's own words.
    case notStarted(String)

    /// In the words of the summary.
    func verdict(limit: Int) -> String {
        switch self {
        case .exited(0): "held"
        case .exited(let status): "FAILED with exit status \(status)"
        case .signalled(let signal): "FAILED: ended by signal \(signal)"
        case .tooLong: "FAILED: no end within \(limit) s, and was stopped"
        case .interrupted: "interrupted"
        case .notStarted(let reason): "FAILED: could not be started: \(reason)"
        }
    }
}

/// Runs other programs one after the other, each in a process group of its own, so that all of it can be stopped.
///
/// The signals for the end of a child and for the end of the tour are blocked and waited for, with a deadline:
/// one thread, and no handler.
struct Program {
    private var expected = sigset_t()

    init() {
        sigemptyset(&expected)
        for signal in [SIGCHLD, SIGINT, SIGTERM, SIGHUP] { sigaddset(&expected, signal) }
        pthread_sigmask(SIG_BLOCK, &expected, nil)
    }

    /// Runs a program with this one's output and no input, and waits for its end.
    func run(_ path: String, _ arguments: [String], limit: Duration) -> Ending {
        var child: pid_t = 0
        let code = start(path, arguments, &child)
        if code != 0 { return .notStarted(String(cString: strerror(code))) }
        let clock = ContinuousClock()
        let deadline = clock.now + limit
        while true {
            if let ending = ending(of: child) { return ending }
            let left = deadline - clock.now
            if left <= .zero {
                stop(child)
                return .tooLong
            }
            let signal = nextSignal(within: left)
            if signal == SIGINT || signal == SIGTERM || signal == SIGHUP {
                stop(child)
                return .interrupted(signal)
            }
        }
    }

    /// The next expected signal, or -1 when the time has passed.
    private func nextSignal(within duration: Duration) -> Int32 {
        let (seconds, attoseconds) = duration.components
        var time = timespec(tv_sec: Int(seconds), tv_nsec: Int(attoseconds / 1_000_000_000))
        var expected = expected
        return sigtimedwait(&expected, nil, &time)
    }

    private func start(_ path: String, _ arguments: [String], _ child: inout pid_t) -> Int32 {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var nothing = sigset_t()
        sigemptyset(&nothing)
        posix_spawnattr_setsigmask(&attributes, &nothing)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        let words = ([path] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        return posix_spawn(&child, path, &files, &attributes, words, environ)
    }

    private func ending(of child: pid_t) -> Ending? {
        var status: Int32 = 0
        guard waitpid(child, &status, WNOHANG) == child else { return nil }
        let signal = status & 0x7f
        return signal == 0 ? .exited((status >> 8) & 0xff) : .signalled(signal)
    }

    /// Asks the whole group to end, gives it two seconds, and then does not ask any more.
    private func stop(_ child: pid_t) {
        kill(-child, SIGTERM)
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(2)
        var isGone = false
        while !isGone, clock.now < deadline {
            _ = nextSignal(within: .milliseconds(50))
            isGone = ending(of: child) != nil
        }
        // The child's own children may still be there, whether or not it is itself.
        kill(-child, SIGKILL)
        var status: Int32 = 0
        if !isGone { waitpid(child, &status, 0) }
    }
}
