import CKernel
import Glibc
import Kernel
import Stage
import Testing
import Timeline

extension KernelSuite {
    @Suite("liveness") struct Liveness {
        @Test("a wait with a deadline ends neither early nor late", arguments: DriverKind.permitted, [1, 2])
        func deadlines(kind: DriverKind, waiters: Int) throws {
            let driver = try Driver.make(kind, waiters: waiters)
            let target = CompletionTarget()
            for wait in [Duration.zero, .microseconds(300), .milliseconds(2), .milliseconds(20)] {
                // The machine may be busy: one of many has to be good.
                var (best, tries) = (UInt64.max, 0)
                while tries < 3 || best >= 1_000_000 && tries < 300 {
                    let deadline = Deadline.after(wait)
                    var completed = CompletionList()
                    driver.poll(for: target, until: deadline, &completed)
                    let now = monotonicNanoseconds()
                    #expect(now >= deadline.nanoseconds && completed.isEmpty)
                    best = min(best, now - deadline.nanoseconds)
                    tries += 1
                }
                #expect(best < 1_000_000, "\(best) ns late")
            }
        }

        @Test("a notice that completes nothing does not end a wait", arguments: DriverKind.permitted)
        func emptyNotices(kind: DriverKind) throws {
            let collector = try Collector(kind, pollers: 0)
            // Being registered gives a notice, and so does each of these.
            let (socket, peer) = try connection(collector)
            peer.send("nobody has asked for this")
            let deadline = Deadline.after(.milliseconds(5))
            collector.poll(until: deadline)
            #expect(deadline.hasPassed)
            withExtendedLifetime(socket) {}
        }

        @Test(
            "wake from another thread, before the wait and during it", arguments: DriverKind.permitted,
            [1, 2])
        func wake(kind: DriverKind, waiters: Int) throws {
            let driver = try Driver.make(kind, waiters: waiters)
            let target = CompletionTarget()
            driver.wake()
            var completed = CompletionList()
            driver.poll(for: target, until: .after(.seconds(5)), &completed)
            for _ in 0..<200 {
                let gate = Gate()
                let waker = startThread("waker") {
                    gate.pass()
                    driver.wake()
                }
                gate.open()
                let deadline = Deadline.after(.seconds(5))
                driver.poll(for: target, until: deadline, &completed)
                #expect(!deadline.hasPassed)
                waker.join()
            }
            // Used up.
            let deadline = Deadline.after(.milliseconds(2))
            driver.poll(for: target, until: deadline, &completed)
            #expect(deadline.hasPassed && completed.isEmpty)
        }

        @Test(
            "with several waiters every completion is handled, and none is left behind",
            arguments: DriverKind.permitted)
        func severalWaiters(kind: DriverKind) throws {
            try withCollector(kind, pollers: 3) { collector in
                let pairs = try (0..<40).map { _ in try connection(collector) }
                for _ in 0..<20 {
                    let receives = pairs.map { _ in Buffer(8) }
                    for ((socket, _), receive) in zip(pairs, receives) { try socket.receive(receive) }
                    for (_, peer) in pairs { peer.send("x") }
                    let packets = collector.next(40)
                    #expect(Set(packets.map { ObjectIdentifier($0.operation) }).count == 40)
                    if packets.count < 40 { return }
                }
            }
        }

        @Test("a completion comes while its poster computes", arguments: DriverKind.permitted)
        func computingPoster(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                var best = UInt64.max
                // Once is enough; on a busy machine it may take a few tries.
                for _ in 0..<50 where best >= 2_000_000 {
                    let receive = Buffer(8)
                    let posted = Gate()
                    let seen = Gate()
                    let poster = startThread("poster") {
                        try? socket.receive(receive)
                        posted.open()
                        while !seen.isOpen {}
                    }
                    posted.pass()
                    let start = monotonicNanoseconds()
                    peer.send("now")
                    #expect(try #require(collector.next()).operation === receive)
                    best = min(best, monotonicNanoseconds() - start)
                    seen.open()
                    poster.join()
                }
                #expect(best < 2_000_000, "\(best) ns")
            }
        }

        @Test("what is pending when a driver retires still comes to its end", arguments: DriverKind.permitted)
        func retired(kind: DriverKind) throws {
            let collector = try Collector(kind)
            let (socket, peer) = try connection(collector)
            let first = Buffer(8)
            try socket.receive(first)
            collector.stop()
            collector.driver.retire()
            peer.send("late")
            #expect(first.wait(until: .after(Collector.patience)) && first.bytes == 4)
            _ = collector.next()
            // Posted after the end, too.
            usleep(2_000)
            try socket.receive(first)
            socket.close()
            let packet = try #require(collector.next())
            #expect(packet.operation === first && packet.code == ECANCELED)
        }

        @Test(
            "io_uring is permitted here",
            .enabled(if: Driver.permits(.ioUring), "io_uring is not permitted here"))
        func isPermitted() throws {
            #expect(DriverKind.permitted == [.epoll, .ioUring])
            #expect(try Driver.make(.ioUring).kind == .ioUring)
        }
    }
}

extension Driver {
    static func permits(_ kind: DriverKind) -> Bool { DriverKind.permitted.contains(kind) }
}

/// What concerns a whole process is counted in one of its own.
@Suite("kernel: a process of its own", .serialized) struct KernelProcesses {
    @Test(
        "no descriptor and no thread is left behind, and none is inherited", arguments: DriverKind.permitted)
    func leaks(kind: DriverKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            inChild {
                try Leaks.run(DriverKind(rawValue: kind)!)
            }
        }
    }

    @Test("what is in a ring's way is said as it is")
    func obstacles() {
        func words(_ code: Int32) -> String {
            DriverKind.words(for: SystemError(code, attempted: "create a ring"))
        }
        #expect(words(EPERM) == "io_uring is not permitted here" && words(EACCES) == words(EPERM))
        #expect(words(ENOSYS).contains("Linux 6.0") && words(EINVAL) == words(ENOSYS))
        #expect(words(ENOMEM).contains("memory to lock") && words(ENOMEM).contains("ulimit -l"))
        #expect(words(EMFILE).contains("create a ring"))
    }

    /// Whether the kernel charges a ring's memory to its user, and this process can become one without rights.
    private static let isChargedForRings: Bool = {
        var name = utsname()
        uname(&name)
        let release = withUnsafeBytes(of: name.release) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        let version = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
        guard version.count == 2, DriverKind.permitted.contains(.ioUring) else { return false }
        let number = version[0] * 1_000 + version[1]
        return (number < 5_012 || number >= 6_014) && Resources.canBecomeAnotherUser
    }()

    @Test(
        "where a user's memory for rings is used up, the next driver is epoll's, and the program goes on",
        .enabled(
            if: isChargedForRings,
            "needs rights to become a user without rights, and a kernel that charges for rings: before 5.12, or from 6.14"
        ))
    func noMemoryForRings() async {
        await #expect(processExitsWith: .success) {
            inChild {
                // Before the first ring is asked for; one of them fits, or none, and never 16.
                var limit = rlimit(rlim_cur: 192 << 10, rlim_max: 192 << 10)
                setrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
                try #require(setgid(65_533) == 0 && setuid(65_533) == 0)
                var kinds: [DriverKind] = []
                var drivers: [Driver] = []
                for _ in 0..<16 {
                    let driver = try Driver.make(.ioUring)
                    kinds.append(driver.kind)
                    drivers.append(driver)
                }
                // The memory of a ring that could not be made whole is the user's again a moment later: so one may follow
                // that fits, after one that did not.
                #expect(kinds.contains(.epoll) && kinds.count { $0 == .ioUring } < 8, "\(kinds)")
            }
        }
    }

    @Test(
        "without descriptors: an error each, and it goes on when there are some",
        arguments: DriverKind.permitted)
    func exhaustion(kind: DriverKind) async {
        await #expect(processExitsWith: .success) { [kind = kind.rawValue as String] in
            inChild {
                try Leaks.exhaust(DriverKind(rawValue: kind)!)
            }
        }
    }

    @Test("a recording ends the life of an operation whose post is refused")
    func refusedInARecording() async {
        await #expect(processExitsWith: .success) {
            inChild {
                try withCollector(.epoll) { collector in
                    let (socket, peer) = try connection(collector)
                    try peer.reset()
                    let letter = Buffer("x")
                    Recorder.start()
                    // The send is tried at once, and meets the reset.
                    expectError(ECONNRESET) { try socket.send(letter, from: letter.content) }
                    let records = Recorder.stop().records.filter { $0.operation == letter.identity }
                    #expect(
                        records.map(\.what) == [
                            .kind("send"), .moment(.posted), .moment(.pending), .over,
                        ])
                }
            }
        }
    }
}

enum Leaks {
    struct Failed: Error { let what: String }

    static func check(_ condition: Bool, _ what: String) throws {
        if !condition {
            // A thrown error ends the process without a word; this reaches the one that waits for it.
            Issue.record("\(what)")
            throw Failed(what: what)
        }
    }

    static func descriptors() -> [Int32] {
        guard let folder = opendir("/proc/self/fd") else { return [] }
        defer { closedir(folder) }
        let own = dirfd(folder)
        var found: [Int32] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let number = Int32(name), number != own { found.append(number) }
        }
        return found
    }

    static func threads() -> Int {
        guard let folder = opendir("/proc/self/task") else { return -1 }
        defer { closedir(folder) }
        var count = 0
        while let entry = readdir(folder) { if entry.pointee.d_name.0 != UInt8(ascii: ".") { count += 1 } }
        return count
    }

    /// Everything once, with something pending everywhere.
    private static func round(_ kind: DriverKind, inspect: () throws -> Void) throws {
        try withCollector(kind, pollers: 2) { collector in
            let (socket, peer) = try connection(collector)
            let listener = try Socket.listener(on: .loopback())
            try listener.associate(with: collector, key: 5, driver: collector.driver)
            let file = try scratchFile(pattern(1 << 16))
            let accepts = (0..<3).map { _ in (Socket(), Buffer(16 + 2 * Address.capacity)) }
            for (fresh, buffer) in accepts {
                try listener.accept(buffer, fresh, into: buffer.area, receiveLength: 16)
            }
            let client = try Socket(boundTo: .loopback())
            try client.associate(with: collector, key: 6, driver: collector.driver)
            let connect = Buffer("hello")
            try client.connect(connect, to: listener.localAddress, firstData: connect.content)
            try check(collector.next(2).count == 2, "connect and accept complete")
            try socket.transmit(Overlapped(), file)
            try check(peer.receive(1 << 16).count == 1 << 16 && collector.next() != nil, "transmit completes")
            let read = Buffer(64)
            try file.read(read, into: read.area)
            try check(read.wait(until: .after(.seconds(5))), "read completes")
            for _ in 0..<3 { try socket.receive(Buffer(8)) }
            try inspect()
            if kind == .epoll { listener.close() }
            for (fresh, _) in accepts { fresh.close() }
            listener.close()
            socket.close()
            try check(collector.next(5).count == 5, "everything pending completes")
        }
    }

    static func run(_ kind: DriverKind) throws {
        // The first round makes what lives as long as the process: the system driver, and threads of the runtime.
        try round(kind) {}
        usleep(20_000)
        let before = (descriptors().sorted(), threads())
        for _ in 0..<5 {
            try round(kind) {
                for descriptor in descriptors() where descriptor > 2 && !before.0.contains(descriptor) {
                    let flags = ck_fcntl(descriptor, F_GETFD, 0)
                    try check(flags & FD_CLOEXEC != 0, "descriptor \(descriptor) is close-on-exec")
                }
            }
        }
        try check(
            eventually(within: .seconds(5)) { descriptors().sorted() == before.0 && threads() <= before.1 },
            "before \(before), after \(descriptors().sorted()), \(threads())")
    }

    static func exhaust(_ kind: DriverKind) throws {
        // The runtime opens and closes descriptors of its own when it begins.
        Resources.settle()
        let collector = try Collector(kind)
        let listener = try Socket.listener(on: .loopback())
        try listener.associate(with: collector, key: 5, driver: collector.driver)
        let client = try Socket(boundTo: .loopback())
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = 64
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        var fillers: [Socket] = []
        while let socket = try? Socket.unbound() { fillers.append(socket) }
        func isOut(_ body: () throws -> Void) -> Bool {
            do { try body() } catch { return (error as? SystemError)?.code == EMFILE }
            return false
        }
        try check(isOut { _ = try Socket.unbound() }, "socket")
        try check(isOut { _ = try Socket.listener(on: .loopback()) }, "listener")
        try check(isOut { _ = try File("/dev/null") }, "file")
        try check(isOut { _ = try Poller() }, "poller")
        try check(isOut { _ = try Driver.make(kind) }, "driver")
        let buffer = Buffer(2 * Address.capacity)
        let fresh = Socket()
        try listener.accept(buffer, fresh, into: buffer.area, receiveLength: 0)
        let connect = Buffer(0)
        try client.associate(with: collector, key: 6, driver: collector.driver)
        try client.connect(connect, to: listener.localAddress)
        let packets = collector.next(2)
        try check(
            packets.contains { $0.operation === buffer && $0.code == EMFILE }, "accept tells: \(packets)")
        try check(
            packets.contains { $0.operation === connect && $0.code == 0 }, "the client waits: \(packets)")
        // The client is still in the backlog, and the socket still fresh. The runtime may be waiting for a descriptor,
        // too: there is more than one now.
        fillers.removeLast(8)
        try listener.accept(buffer, fresh, into: buffer.area, receiveLength: 0)
        try check(collector.next()?.code == 0, "it goes on")
        fillers = []
        collector.stop()
    }
}
