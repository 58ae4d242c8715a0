import Glibc
import Synchronization

/// Which of the system's interfaces carries operations out.
public enum DriverKind: String, CaseIterable, Sendable, CustomStringConvertible {
    /// Readiness, turned into completion.
    case epoll
    /// The kernel's own completions.
    case ioUring = "io_uring"

    /// The name that the system gives it.
    public var description: String { rawValue }

    /// The kinds that work here. io_uring needs Linux 6.0, a system that permits it (containers often do not), and memory
    /// that may be locked.
    public static let permitted: [DriverKind] = Ring.obstacle == nil ? [.epoll, .ioUring] : [.epoll]

    /// What is used where no kind is asked for: the environment's `PORT_DRIVER`, or epoll.
    public static let standard: DriverKind = {
        guard let name = getenv("PORT_DRIVER").map({ String(cString: $0) }) else { return .epoll }
        guard let kind = DriverKind(rawValue: name) else {
            complain("PORT_DRIVER=\(name) is neither epoll nor io_uring; epoll is used")
            return .epoll
        }
        return kind
    }()

    fileprivate static func complain(_ line: String) {
        let text = "completion ports: \(line)\n"
        _ = text.withCString { Glibc.write(2, $0, strlen($0)) }
    }

    /// Says once that io_uring was asked for, and what is in its way.
    fileprivate static func sayFallback(_ obstacle: SystemError) {
        saidBefore.withLock { said in
            if said.insert(obstacle.code).inserted { complain("\(words(for: obstacle)); epoll is used") }
        }
    }

    private static let saidBefore = Mutex<Set<Int32>>([])

    /// What keeps a ring from being made, as a reader can use it.
    package static func words(for obstacle: SystemError) -> String {
        switch obstacle.code {
        case EPERM, EACCES: return "io_uring is not permitted here"
        case ENOSYS, EINVAL, EOPNOTSUPP: return "io_uring needs Linux 6.0 or later, built with it"
        case ENOMEM:
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
            let room = "`ulimit -l` is \(limit.rlim_cur / 1024) KiB for all of a user's rings"
            return "io_uring has no memory to lock: \(room)"
        default: return "io_uring cannot be used: \(obstacle)"
        }
    }
}

/// When a ring hands requests to the kernel.
public enum Submission: Sendable {
    /// With the post: a handler that posts and then computes has started its operation.
    case atOnce
    /// With the next wait: fewer system calls, and nothing starts before its poster waits again.
    case withNextWait
    /// When a worker has handled what it took, before it asks for more; at once from every other thread, and for
    /// 32 requests. For servers whose handlers are short.
    case afterBatch
}

extension Driver {
    /// Which interface this is.
    public final var kind: DriverKind { startsBlindly ? .ioUring : .epoll }

    /// Makes a driver of a kind, or an epoll driver where no ring can be made, and says once why.
    ///
    /// - Parameter waiters: How many threads will ever wait in it at once.
    public static func make(
        _ kind: DriverKind? = nil, waiters: Int = 1, submission: Submission = .atOnce
    ) throws(SystemError) -> Driver {
        switch kind ?? .standard {
        case .epoll: return try EpollDriver()
        case .ioUring:
            if let obstacle = Ring.obstacle {
                DriverKind.sayFallback(obstacle)
                return try EpollDriver()
            }
            do throws(SystemError) {
                return try URingDriver(waiters: waiters, submission: submission)
            } catch {
                // The first rings of a user may have taken all the memory that there is for them.
                guard error.code == ENOMEM else { throw error }
                DriverKind.sayFallback(error)
                return try EpollDriver()
            }
        }
    }

    /// The driver of all handles without a port, with a thread that waits in it.
    public static let system: Driver = {
        do {
            let driver = try Driver.make()
            _ = try Thread("system driver") {
                while true {
                    var completed = CompletionList()
                    driver.collect(until: .never, &completed)
                    completed.deliver()
                }
            }
            return driver
        } catch {
            fatalError("the driver for handles without a port cannot start: \(error)")
        }
    }()
}
