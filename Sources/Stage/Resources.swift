import CKernel
import Glibc
import Kernel

/// What this process uses: descriptors, threads, memory, processor time.
public enum Resources {
    /// Whether this process may become a user without rights: it is root's, with CAP_SETGID and CAP_SETUID.
    public static let canBecomeAnotherUser =
        getuid() == 0 && [6, 7].allSatisfy { ck_prctl(PR_CAPBSET_READ, $0) == 1 }

    /// Descriptors that a program wants besides those of its clients: files, pipes, pollers, rings.
    public static let spareDescriptors = 256

    /// Allows this process as many descriptors as the system permits: the hard limit, or more if it is not enough and
    /// the process has the right.
    /// - Returns: how many that is.
    @discardableResult
    public static func raiseDescriptorLimit(atLeast wanted: Int = 0) -> Int {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        getrlimit(resource, &limit)
        if limit.rlim_max < UInt(max(wanted, 0)) {
            var higher = rlimit(rlim_cur: UInt(wanted), rlim_max: UInt(wanted))
            setrlimit(resource, &higher)  // refused to most; what is permitted is read back below
            getrlimit(resource, &limit)
        }
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
        getrlimit(resource, &limit)
        return Int(clamping: limit.rlim_cur)
    }

    /// Whether the system permits this process this many descriptors: in a container it may be 1,024. A test that needs more
    /// asks first, and is skipped visibly.
    public static func permitsDescriptors(_ count: Int) -> Bool {
        raiseDescriptorLimit(atLeast: count) >= count
    }

    /// How many clients fit into the limit of descriptors, at most as many as wanted.
    /// - Parameter each: the descriptors that a client takes in this process: 2 when client and server share it, 1
    ///   when the clients are in a child process.
    public static func clientsThatFit(_ wanted: Int, descriptorsEach each: Int) -> Int {
        let limit = raiseDescriptorLimit(atLeast: wanted * each + spareDescriptors)
        return min(wanted, max(1, (limit - spareDescriptors) / each))
    }

    /// How many descriptors are open, without that of the listing.
    public static var openDescriptors: Int { entries(of: "/proc/self/fd") - 1 }

    /// What the first hundred descriptors stand for: for the message of a check that failed.
    public static var whatIsOpen: String {
        var all: [String] = []
        for number in 0..<100 {
            var target = [CChar](repeating: 0, count: 128)
            let length = readlink("/proc/self/fd/\(number)", &target, target.count)
            if length > 0 {
                all.append(
                    "\(number) \(String(decoding: target[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self))"
                )
            }
        }
        return all.joined(separator: ", ")
    }

    /// How many threads there are.
    public static var threads: Int { entries(of: "/proc/self/task") }

    /// Waits until the numbers of descriptors and threads have stayed the same for 50 ms, for two seconds at most. To
    /// be called before counting in a process that has just begun: the Swift runtime opens some of its own then.
    public static func settle() {
        let deadline = Deadline.after(.seconds(2))
        var last = (openDescriptors, threads)
        var since = monotonicNanoseconds()
        while !deadline.hasPassed && monotonicNanoseconds() - since < 50_000_000 {
            usleep(1_000)
            let present = (openDescriptors, threads)
            if present != last { since = monotonicNanoseconds() }
            last = present
        }
    }

    /// The memory that is in use, in bytes (the resident set).
    public static var residentBytes: Int {
        guard let file = fopen("/proc/self/statm", "re") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        guard fgets(&line, Int32(line.count), file) != nil else { return 0 }
        // Two numbers of pages: the address space, and what is resident of it.
        var rest: UnsafeMutablePointer<CChar>?
        _ = strtol(line, &rest, 10)
        return strtol(rest!, nil, 10) * sysconf(Int32(_SC_PAGESIZE))
    }

    /// The processor time that all threads have used.
    public static var processTime: Duration { time(CLOCK_PROCESS_CPUTIME_ID) }

    /// The processor time that the calling thread has used.
    public static var threadTime: Duration { time(CLOCK_THREAD_CPUTIME_ID) }

    private static func time(_ clock: clockid_t) -> Duration {
        var time = timespec()
        clock_gettime(clock, &time)
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }

    private static func entries(of folder: String) -> Int {
        guard let directory = opendir(folder) else { return 0 }
        defer { closedir(directory) }
        var count = 0
        while let entry = readdir(directory) {
            if entry.pointee.d_name.0 != CChar(UInt8(ascii: ".")) { count += 1 }
        }
        return count
    }
}
