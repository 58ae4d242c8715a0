import Glibc
import Kernel

/// Scenarios that end their process, or use up what it has only once, run in one of their own: the chapter's program, told
/// which.
public struct OwnProcess: Sendable {
    /// A scenario, on a driver.
    public typealias Scenario = @Sendable (DriverKind) throws -> Void

    private static let argument = "--own-process"
    /// What a scenario says last before the touch that ends it.
    public static let lastWords = "now it is touched"

    private let program: String
    private let scenarios: [String: Scenario]

    /// The scenarios of a chapter's program, each by its pitfall's name.
    public init(_ program: String, _ scenarios: [String: Scenario]) {
        (self.program, self.scenarios) = (program, scenarios)
    }

    /// If this process was started for a scenario: runs it, and ends. To be called first in the program.
    public func runIfAsked() {
        let words = CommandLine.arguments
        guard words.count == 4, words[1] == OwnProcess.argument, let driver = DriverKind(rawValue: words[3])
        else { return }
        guard let scenario = scenarios[words[2]] else { refuse("\(program): no scenario is called that") }
        do {
            try scenario(driver)
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }

    /// Runs a scenario, and says how it ended: with a status other than 0 for a signal, too.
    /// - Throws: ENOENT when the program is not beside this one, ETIMEDOUT after 20 seconds.
    public func run(_ slug: String, _ driver: DriverKind) throws -> (status: Int32, lines: [String]) {
        guard let file = Child.product(program) else {
            throw SystemError(ENOENT, attempted: "find the program \(program) beside this one")
        }
        let ending = try Child.run(
            file, [OwnProcess.argument, slug, driver.rawValue],
            environment: ["SWIFT_BACKTRACE": "enable=no"], within: .seconds(20))
        if ending.timedOut { throw SystemError(ETIMEDOUT, attempted: "wait for the scenario's process") }
        return (Int32(ending.status), ending.output.split(separator: "\n").map(String.init))
    }

    /// Runs a scenario that says `lastWords` and touches freed memory: whether it died of that, and not of anything else. (A
    /// sanitizer turns the signal into a status of its own.)
    public func dies(_ slug: String, _ driver: DriverKind) throws -> Observation {
        let (status, lines) = try run(slug, driver)
        let end =
            status == 128 + SIGSEGV
            ? "the process was ended by signal 11, SIGSEGV: an access violation"
            : "the process ended with status \(status)"
        return Observation(
            happened: status != 0 && lines.last == OwnProcess.lastWords, lines: lines + [end])
    }

    /// Says something at once, whatever happens next. For scenarios.
    public static func say(_ line: String) {
        _ = (line + "\n").withCString { write(STDOUT_FILENO, $0, strlen($0)) }
    }
}

/// Memory that ends where the next page begins, which must not be touched. When it is freed it must not be touched either:
/// the first late touch is an access violation, every time, instead of a surprise, some time.
public struct GuardedMemory: @unchecked Sendable {
    /// The memory.
    public let bytes: UnsafeMutableRawBufferPointer
    private let page: UnsafeMutableRawPointer
    private static var pageSize: Int { sysconf(Int32(_SC_PAGESIZE)) }

    /// This many bytes, a page at most.
    public init(_ count: Int) throws(SystemError) {
        let size = Self.pageSize
        let pages = mmap(nil, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard count <= size, let pages, pages != MAP_FAILED else {
            throw SystemError(ENOMEM, attempted: "map two pages")
        }
        mprotect(pages + size, size, PROT_NONE)
        page = pages
        bytes = UnsafeMutableRawBufferPointer(start: pages + size - count, count: count)
    }

    /// From now on every touch ends the process.
    public func free() { mprotect(page, Self.pageSize, PROT_NONE) }
}
