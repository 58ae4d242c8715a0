import CKernel
import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// The system's own budget of locked pages: `RLIMIT_MEMLOCK`. It binds `mlock` and the buffers that are registered with a
/// ring; and it does not bind the superuser, so it is shown in a process that is none.
public enum SystemLimit {
    static let argument = "--memlock-child"
    /// Pages that the child may lock.
    public static let pages = 64

    /// What the child has seen.
    public struct Report: Sendable, Equatable {
        /// Receives with a buffer of a page each that could be posted before the system refused to lock one more.
        public internal(set) var posted = 0
        /// What the system says to have locked then, in pages.
        public internal(set) var locked = 0
        /// The number of the error that the next post met.
        public internal(set) var error: Int32 = 0
        /// Receives without a buffer that were posted, and what the system says to have locked then.
        public internal(set) var zeroByte = (posted: 0, locked: 0)
        /// Pages that the system locks for ten bytes that straddle a boundary.
        public internal(set) var straddling = 0
        /// The most pages that could be registered with a ring; nil where rings are not permitted.
        public internal(set) var registered: Int?
        /// Pages that the ring itself consists of. Newer systems charge them as well (Linux 6.14 or so).
        public internal(set) var ring = 0
        /// Whether the child was a user of its own. Else other processes' rings count against the same limit.
        public internal(set) var isAlone = false

        /// Whether all this is what the limit and the arithmetic of pages predict.
        public var isAsPredicted: Bool {
            posted == pages && locked == pages && error == ENOBUFS && zeroByte.posted > pages
                && zeroByte.locked == 0 && straddling == 2
                && (registered == nil || !isAlone || registered == pages || registered == pages - ring)
        }

        /// Equal in everything.
        public static func == (a: Report, b: Report) -> Bool { a.line == b.line }

        var line: String {
            "limit \(posted) \(locked) \(error) \(zeroByte.posted) \(zeroByte.locked) \(straddling) "
                + "\(registered ?? -1) \(ring) \(isAlone ? 1 : 0)"
        }

        init() {}

        init?(line: String) {
            let numbers = line.split(separator: " ").dropFirst().compactMap { Int($0) }
            guard numbers.count == 9 else { return nil }
            (posted, locked, error) = (numbers[0], numbers[1], Int32(numbers[2]))
            zeroByte = (numbers[3], numbers[4])
            straddling = numbers[5]
            registered = numbers[6] < 0 ? nil : numbers[6]
            ring = numbers[7]
            isAlone = numbers[8] == 1
        }
    }

    // MARK: Rights

    /// Whether this process may lock so many pages.
    public static func permits(_ pages: Int) -> Bool {
        if hasCapability(lockingCapability) { return true }
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
        return limit.rlim_cur >= UInt(pages * Page.size)
    }

    /// Whether a child of this process can be one that the limit binds, and that may lock a few pages at all.
    public static var canBeShown: Bool {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
        guard limit.rlim_max >= UInt(pages * Page.size) else { return false }
        return !hasCapability(lockingCapability) || (geteuid() == 0 && hasCapability(userCapability))
    }

    private static let userCapability = 7  // CAP_SETUID
    private static let lockingCapability = 14  // CAP_IPC_LOCK

    private static func hasCapability(_ number: Int) -> Bool {
        guard let word = status("CapEff:").flatMap({ UInt64($0, radix: 16) }) else { return false }
        return word & 1 << UInt64(number) != 0
    }

    /// Pages that the system says this process has locked (`VmLck`).
    public static var lockedPages: Int { (status("VmLck:").flatMap { Int($0) } ?? 0) * 1_024 / Page.size }

    /// The first word after a name in this process's status.
    private static func status(_ name: String) -> Substring? {
        guard let file = fopen("/proc/self/status", "re") else { return nil }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 4_096)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if text.hasPrefix(name) { return text.split { " \t\n".contains($0) }.dropFirst().first }
        }
        return nil
    }

    // MARK: The child

    /// Runs the child and returns what it has seen.
    public static func show(_ driver: DriverKind) throws(SystemError) -> Report {
        guard let program = Child.product("07-locked-memory") else {
            throw SystemError(ENOENT, attempted: "find the program 07-locked-memory beside this one")
        }
        let ending = try Child.run(program, [argument, driver.rawValue], within: .seconds(20))
        guard let line = ending.output.split(separator: "\n").last, let report = Report(line: String(line))
        else {
            throw SystemError(EPROTO, attempted: "show the system's limit: \(ending.errors)")
        }
        return report
    }

    /// If this process was started as such a child: lowers its rights and its limit, tries, and ends. To be called first
    /// in the program.
    public static func runIfAsked() {
        let words = CommandLine.arguments
        guard words.count == 3, words[1] == argument, let driver = DriverKind(rawValue: words[2]) else {
            return
        }
        do {
            var report = Report()
            // Before the limit is lowered: rings are charged, too.
            let port = try CompletionPort.on(driver)
            let hasRings = DriverKind.permitted.contains(.ioUring)
            report.isAlone = geteuid() == 0 && hasCapability(userCapability)
            try lowerRights(asAnotherUser: report.isAlone)
            report.straddling = try straddle()
            try postUntilRefused(port, &report)
            try postWithoutBuffers(port, &report)
            port.close()
            if hasRings { try register(&report) }
            print(report.line)
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }

    private static func lowerRights(asAnotherUser: Bool) throws(SystemError) {
        // A user of its own, so that no other program's locked pages count. The rights go with the user.
        if asAnotherUser, setuid(200_000 + UInt32(getpid())) != 0 {
            throw SystemError(errno, attempted: "become another user")
        }
        let bytes = UInt(pages * Page.size)
        var limit = rlimit(rlim_cur: bytes, rlim_max: bytes)
        guard setrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit) == 0 else {
            throw SystemError(errno, attempted: "lower the limit of locked memory")
        }
        guard !hasCapability(lockingCapability) else {
            throw SystemError(EPERM, attempted: "be bound by the limit of locked memory")
        }
    }

    private static func straddle() throws(SystemError) -> Int {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 2 * Page.size, alignment: Page.size)
        defer { memory.deallocate() }
        guard mlock(memory + Page.size - 5, 10) == 0 else {
            throw SystemError(errno, attempted: "lock ten bytes")
        }
        defer { munlock(memory + Page.size - 5, 10) }
        return lockedPages
    }

    private static func postUntilRefused(_ port: CompletionPort, _ report: inout Report) throws(SystemError) {
        let slab = try PageSlab(bufferSize: Page.size, capacity: 2 * pages)
        // Larger than the system's: so it is the system that says no.
        let budget = PageBudget(pages: 2 * pages, locking: .system)
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        while let buffer = slab.take() {
            let reading = Reading(into: buffer)
            do throws(SystemError) {
                try budget.charge(UnsafeRawBufferPointer(buffer), to: reading)
            } catch {
                report.error = error.code
                break
            }
            try pair.server.receive(reading, into: buffer)
            report.posted += 1
        }
        report.locked = lockedPages
        pair.server.close()
        for _ in 0..<report.posted {
            if let reading = try port.next().operation as? Reading { budget.refund(reading) }
        }
        guard lockedPages == 0 else { throw SystemError(EBUSY, attempted: "unlock every page") }
    }

    private static func postWithoutBuffers(_ port: CompletionPort, _ report: inout Report) throws(SystemError)
    {
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        for _ in 0..<4 * pages {
            try pair.server.receive(Overlapped(), into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
            report.zeroByte.posted += 1
        }
        report.zeroByte.locked = lockedPages
        pair.server.close()
        for _ in 0..<report.zeroByte.posted { _ = try port.next() }
    }

    /// Registers pages with a ring, each a buffer of its own: as many as the system lets.
    private static func register(_ report: inout Report) throws(SystemError) {
        var parameters = io_uring_params()
        let ring = ck_io_uring_setup(1, &parameters)
        guard ring >= 0 else {
            guard errno == ENOMEM, !report.isAlone else {
                throw SystemError(errno, attempted: "create a ring")
            }
            // This user's other rings have all that the limit allows.
            report.registered = 0
            return
        }
        defer { close(ring) }
        let answers =
            Int(parameters.cq_off.cqes) + Int(parameters.cq_entries) * MemoryLayout<io_uring_cqe>.stride
        let requests = Int(parameters.sq_off.array) + Int(parameters.sq_entries) * 4
        let entries = Int(parameters.sq_entries) * MemoryLayout<io_uring_sqe>.stride
        report.ring = Page.count(bytes: max(answers, requests)) + Page.count(bytes: entries)
        let count = 2 * pages
        let memory = UnsafeMutableRawPointer.allocate(byteCount: count * Page.size, alignment: Page.size)
        defer { memory.deallocate() }
        let buffers = (0..<count).map { iovec(iov_base: memory + $0 * Page.size, iov_len: Page.size) }
        // Downwards: what was registered is not given back at once.
        for wanted in (1...count).reversed() {
            if ck_io_uring_register_buffers(ring, buffers, UInt32(wanted)) == 0 {
                report.registered = wanted
                return
            }
            guard errno == ENOMEM else { throw SystemError(errno, attempted: "register \(wanted) buffers") }
        }
        report.registered = 0
    }
}
