#if DEBUG
    import CKernel
    import Glibc
    import Stage
    import Testing

    @testable import Kernel

    /// The limit is a whole process's: it is set in one of its own.
    @Suite("kernel: a ring that cannot be made whole") struct KernelRing {
        @Test(
            "leaves nothing behind, and the next one is whole",
            .enabled(if: DriverKind.permitted.contains(.ioUring), "io_uring is not permitted here"),
            .disabled(if: isSanitized, "a sanitizer takes addresses of its own, and ends without them"))
        func half() async {
            await #expect(processExitsWith: .success) {
                inChild {
                    let kind = __rlimit_resource_t(RLIMIT_AS.rawValue)
                    var before = rlimit()
                    getrlimit(kind, &before)
                    // 4,096 entries take 256 KiB, and the two queues 148: there is room for one of both mappings.
                    let room = try #require(KernelRing.addressSpace) + (288 << 10)
                    var limit = rlimit(rlim_cur: rlim_t(room), rlim_max: before.rlim_max)
                    setrlimit(kind, &limit)
                    var refused: SystemError?
                    do throws(SystemError) { _ = try Ring(entries: 4_096) } catch { refused = error }
                    setrlimit(kind, &before)
                    try Leaks.check(refused?.attempted == "map a ring's entries", "\(refused as Any)")
                    let left = KernelRing.mappings
                    try Leaks.check(left == 0, "\(left) mappings of a ring that does not exist")
                    let whole = try Ring(entries: 4_096)
                    try Leaks.check(KernelRing.mappings == 2, "\(KernelRing.mappings) mappings of a ring")
                    withExtendedLifetime(whole) {}
                }
            }
        }

        /// Bytes of addresses that are in use: what `RLIMIT_AS` limits.
        private static var addressSpace: Int? {
            lines(of: "/proc/self/statm").first.flatMap { Int($0.prefix { $0.isNumber }) }
                .map { $0 * sysconf(Int32(_SC_PAGESIZE)) }
        }

        private static var mappings: Int { lines(of: "/proc/self/maps").count { $0.contains("io_uring") } }

        private static func lines(of path: String) -> [String] {
            guard let file = fopen(path, "re") else { return [] }
            defer { fclose(file) }
            var found: [String] = []
            var line = [CChar](repeating: 0, count: 512)
            while fgets(&line, Int32(line.count), file) != nil {
                let text = line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
                found.append(String(decoding: text, as: UTF8.self))
            }
            return found
        }
    }
#endif
