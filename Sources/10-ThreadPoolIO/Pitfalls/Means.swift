import Glibc
import Kernel
import Stage
import ThreadPoolIO

extension ThreadPool {
    /// A pool on one driver.
    static func on(
        _ driver: DriverKind, minimum: Int = 1, maximum: Int = 16, idleTime: Duration = .seconds(10)
    ) throws(SystemError) -> ThreadPool {
        var options = Options()
        (options.minimum, options.maximum, options.idleTime) = (minimum, maximum, idleTime)
        options.port.driver = driver
        return try ThreadPool(options)
    }
}

/// An operation with a buffer of its own.
final class Request: PoolOperation, @unchecked Sendable {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    deinit { memory.deallocate() }
}

/// Memory that ends where the next page begins, which must not be touched. When it is freed it must not be touched either:
/// the first late touch is an access violation, every time, instead of a surprise, some time.
struct GuardedMemory: @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer
    private let page: UnsafeMutableRawPointer
    private static var pageSize: Int { sysconf(Int32(_SC_PAGESIZE)) }

    init(_ count: Int) throws(SystemError) {
        let size = Self.pageSize
        let pages = mmap(nil, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard count <= size, let pages, pages != MAP_FAILED else {
            throw SystemError(ENOMEM, attempted: "map two pages")
        }
        mprotect(pages + size, size, PROT_NONE)
        page = pages
        bytes = UnsafeMutableRawBufferPointer(start: pages + size - count, count: count)
    }

    func free() { mprotect(page, Self.pageSize, PROT_NONE) }
}

/// Scenarios that end in a crash run in a process of their own: the chapter's program, told which.
public enum CrashChild {
    static let argument = "--crash-child"
    /// What the child says last before the touch that ends it.
    static let lastWords = "now it is touched"

    /// If this process was started as such a child: runs the scenario, and ends. To be called first in the program.
    public static func runIfAsked() {
        let words = CommandLine.arguments
        guard words.count == 4, words[1] == argument, let driver = DriverKind(rawValue: words[3]) else {
            return
        }
        do {
            switch words[2] {
            case CloseWithCallbacksRunning.slug: try CloseWithCallbacksRunning.crash(driver)
            case MessageLongerThanBuffer.slug: try MessageLongerThanBuffer.crash(driver)
            default: refuse("10-thread-pool-io: no crash is called that")
            }
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }

    /// Runs the scenario in a child, and says whether it died of the touch, and not of anything else. (A sanitizer turns
    /// the signal into a status of its own.)
    static func observe(_ slug: String, _ driver: DriverKind) throws -> Observation {
        guard let program = Child.product("10-thread-pool-io") else {
            throw SystemError(ENOENT, attempted: "find the program 10-thread-pool-io beside this one")
        }
        let ending = try Child.run(
            program, [argument, slug, driver.rawValue], environment: ["SWIFT_BACKTRACE": "enable=no"],
            within: .seconds(20))
        let words = ending.output.split(separator: "\n").map(String.init)
        let end =
            ending.status == 128 + SIGSEGV
            ? "the process was ended by signal 11, SIGSEGV: an access violation"
            : "the process ended with status \(ending.status)"
        return Observation(
            happened: !ending.timedOut && ending.status != 0 && words.last == lastWords, lines: words + [end])
    }

    /// Says something at once, whatever happens next.
    static func say(_ line: String) {
        _ = (line + "\n").withCString { write(STDOUT_FILENO, $0, strlen($0)) }
    }
}
