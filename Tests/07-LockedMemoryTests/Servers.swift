import Glibc
import Kernel
import LockedMemory
import LockedMemoryPitfalls
import Stage
import Testing

@Suite("Chapter 07: the server in its modes", .serialized)
struct Chapter07LockedMemoryServers {
    // I7.2, I7.4, I7.5
    @Test(
        "adaptive: the tide rises and falls over both thresholds, and every byte comes back",
        arguments: DriverKind.permitted)
    func tide(driver: DriverKind) async throws {
        try await onAThread {
            var options = ThriftyServer.Options()
            options.port.driver = driver
            options.policy = .adaptive(ReceiveThresholds(zeroByteFrom: 24, bufferedUpTo: 10))
            let server = try ThriftyServer(options: options)
            let clients = TidalClients(to: server.address, threads: 2, each: 2...16)
            let report = clients.run(turns: 8) { isHigh in
                // A client's end takes a moment to be noticed.
                let wanted = isHigh ? ReceiveMode.zeroByte : .buffered
                #expect(eventually { server.mode == wanted })
                // Nobody moves, so nobody has a buffer when the mode says so. I7.5
                if isHigh { #expect(eventually { server.budget.counters.locked == 0 }) }
            }
            #expect(report.isWhole, "\(report)")
            #expect(report.turns == 8)
            let changes = server.counters.changes
            #expect(changes.toZeroByte >= 3)
            #expect(changes.toBuffered >= 3)
            #expect(server.stop(), "\(server.counters) \(server.budget.counters)")
        }
    }

    // I7.2, I7.3
    @Test(
        "a budget for a few and clients for many: in every mode all are served, one after the other",
        arguments: DriverKind.permitted)
    func shortBudget(driver: DriverKind) async throws {
        try await onAThread {
            for policy in [.buffered, .zeroByte, nil] as [ReceivePolicy?] {
                var options = ThriftyServer.Options()
                options.port.driver = driver
                options.policy = policy
                options.budgetPages = 6
                options.bufferSize = 2 * Page.size
                let server = try ThriftyServer(options: options)
                // Fewer than a page, and more than a buffer: claims of one page and of two.
                let talkers = TidalClients(
                    to: server.address, threads: 2, each: 1...1, maximumMessage: 20_000)
                #expect(talkers.run(turns: 6).isWhole)
                if policy != .buffered {
                    // In buffered mode, clients in the line are not heard before others leave or speak.
                    let many = TidalClients(
                        to: server.address, threads: 2, each: 4...12, maximumMessage: 20_000)
                    let report = many.run(turns: 4)
                    #expect(report.isWhole, "\(String(describing: policy)) \(report)")
                }
                #expect(server.budget.counters.peak <= 6)
                #expect(server.stop(), "\(server.counters) \(server.budget.counters)")
            }
        }
    }

    // I7.3
    @Test(
        "buffered: a line of 40 clients for 4 pages; each is served, in its order",
        arguments: DriverKind.permitted)
    func line(driver: DriverKind) async throws {
        try await onAThread {
            var options = ThriftyServer.Options()
            options.port.driver = driver
            options.policy = .buffered
            options.budgetPages = 4
            options.workers = 1
            let server = try ThriftyServer(options: options)
            var clients: [Socket] = []
            for number in 1...40 {
                clients.append(try Socket.connected(to: server.address))
                try #require(eventually { server.counters.accepted == number })
            }
            #expect(eventually { server.budget.counters.waiting == 36 })
            let word = [UInt8](repeating: 9, count: 100)
            for client in clients { #expect(try word.withUnsafeBytes { try client.sendNow($0) } == 100) }
            // Each that has been heard goes to the end of the line, and so lets the next one in.
            for (number, client) in clients.enumerated() {
                var heard = 0
                var answer = [UInt8](repeating: 0, count: 128)
                let isWhole = try eventually {
                    heard += try answer.withUnsafeMutableBytes { try client.receiveNow(into: $0) } ?? 0
                    return heard == 100
                }
                #expect(isWhole, "client \(number)")
            }
            #expect(server.counters.ends.isEmpty)
            #expect(server.stop())
        }
    }

    // I7.1, I7.4
    @Test(
        "2,000 idle clients: zero-byte locks nothing, buffered stops at the number that arithmetic predicts",
        arguments: DriverKind.permitted)
    func idle(driver: DriverKind) async throws {
        try await onAThread {
            let count = Resources.clientsThatFit(2_000, descriptorsEach: 1)
            let budget = count * 3 / 4
            for policy in [ReceivePolicy.buffered, .zeroByte, nil] as [ReceivePolicy?] {
                var options = ThriftyServer.Options()
                options.port.driver = driver
                options.policy = policy
                options.budgetPages = budget
                let server = try ThriftyServer(options: options)
                let clients = try IdleClients(count, to: server.address)
                #expect(eventually { server.counters.accepted == count })
                if policy == .buffered {
                    #expect(eventually { server.budget.counters.waiting == count - budget })
                    #expect(server.budget.counters.locked == budget)
                    #expect(server.budget.counters.refused == 0)
                } else {
                    #expect(eventually { server.budget.counters.locked == 0 })
                    #expect(server.mode == .zeroByte)
                    #expect(eventually { server.slab.counters.inUse == 0 })
                }
                #expect(server.counters.connections == count)
                // Also while clients wait in the line.
                #expect(server.stop())
                clients.leave()
            }
        }
    }

    // I7.2, I7.3
    @Test(
        "others hold the budget: who waits in the line leaves it when the server stops",
        arguments: DriverKind.permitted)
    func stopsWithLine(driver: DriverKind) async throws {
        try await onAThread {
            var options = ThriftyServer.Options()
            options.port.driver = driver
            options.policy = .buffered
            options.budgetPages = 4
            let server = try ThriftyServer(options: options)
            let others = Others()
            defer { others.memory.deallocate() }
            try server.budget.charge(UnsafeRawBufferPointer(others.memory), to: others)
            let clients = try (0..<3).map { _ in try Socket.connected(to: server.address) }
            #expect(eventually { server.budget.counters.waiting == 3 })
            _ = server.stop()
            #expect(server.counters.connections == 0)
            #expect(server.budget.counters.waiting == 0)
            #expect(server.slab.counters.inUse == 0)
            server.budget.refund(others)
            #expect(server.budget.counters.locked == 0)
            withExtendedLifetime(clients) {}
        }
    }

    // I7.6
    @Test(
        "adaptive: a budget that runs short, below the threshold, lets go of the buffers of others",
        arguments: DriverKind.permitted)
    func ranShort(driver: DriverKind) async throws {
        try await onAThread {
            var options = ThriftyServer.Options()
            options.port.driver = driver
            options.policy = .adaptive(ReceiveThresholds(zeroByteFrom: 100, bufferedUpTo: 2))
            options.budgetPages = 4
            let server = try ThriftyServer(options: options)
            var clients: [Socket] = []
            for number in 1...5 {
                clients.append(try Socket.connected(to: server.address))
                #expect(eventually { server.counters.accepted == number })
                let locked = number < 5 ? number : 0
                #expect(eventually { server.budget.counters.locked == locked })
            }
            #expect(server.mode == .zeroByte)
            for client in clients.suffix(3) { client.close() }
            #expect(eventually { server.mode == .buffered })
            #expect(server.counters.changes == (1, 1))
            #expect(server.stop())
            withExtendedLifetime(clients) {}
        }
    }

    @Test("one connection more than the maximum is closed at once, and impossible options are refused")
    func limits() async throws {
        try await onAThread {
            var options = ThriftyServer.Options()
            options.maximumConnections = 2
            let server = try ThriftyServer(options: options)
            let clients = try (0..<3).map { _ in try Socket.connected(to: server.address) }
            #expect(eventually { server.counters.refused == 1 })
            #expect(server.counters.connections == 2)
            #expect(server.stop())
            withExtendedLifetime(clients) {}

            options.bufferSize = 0
            #expect(throws: SystemError.self) { try ThriftyServer(options: options) }
            options.bufferSize = 2 * Page.size
            options.budgetPages = 1
            #expect(throws: SystemError.self) { try ThriftyServer(options: options) }
            options.budgetPages = 64
            options.policy = .adaptive(ReceiveThresholds(zeroByteFrom: 5, bufferedUpTo: 5))
            #expect(throws: SystemError.self) { try ThriftyServer(options: options) }
        }
    }

    // I7.2
    @Test(
        "clients that leave in every way, and a server that stops in the middle: every page and buffer is back",
        arguments: DriverKind.permitted)
    func leaving(driver: DriverKind) async throws {
        try await onAThread {
            for policy in [ReceivePolicy.buffered, .zeroByte, nil] as [ReceivePolicy?] {
                var options = ThriftyServer.Options()
                options.port.driver = driver
                options.policy = policy
                options.budgetPages = 24
                let server = try ThriftyServer(options: options)
                let ways = LeavingClients.Way.allCases.filter { $0 != .closedByServer }
                let report = LeavingClients(
                    to: server.address, count: 300, threads: 2, together: 10, ways: ways
                )
                .run()
                #expect(report.strange == 0)
                #expect(report.missing == 0)
                let open = try (0..<40).map { _ in try Socket.connected(to: server.address) }
                #expect(server.stop(), "\(server.counters) \(server.budget.counters)")
                let counters = server.counters
                #expect(counters.connections == 0)
                #expect(counters.ends.values.reduce(0, +) == counters.accepted)
                withExtendedLifetime(open) {}
            }
        }
    }

    @Test("nothing is left of a server: descriptors and threads are as before", arguments: names)
    func nothingIsLeft(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = try #require(DriverKind(rawValue: driver))
            // The first one opens what stays for the life of the process.
            try serve(kind)
            Resources.settle()
            let (descriptors, threads) = (Resources.openDescriptors, Resources.threads)
            try serve(kind)
            let isAsBefore = eventually {
                Resources.openDescriptors == descriptors && Resources.threads == threads
            }
            #expect(isAsBefore, "\(descriptors) descriptors and \(threads) threads before")
        }
    }

    static let names = DriverKind.permitted.map(\.rawValue)
}

/// Somebody else who has pages of a server's budget.
private final class Others: PageClaimant, @unchecked Sendable {
    var claim = PageClaim()
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 * Page.size, alignment: Page.size)
    func budgetCame() {}
}

/// A server's whole life, with some clients.
private func serve(_ driver: DriverKind) throws {
    var options = ThriftyServer.Options()
    options.port.driver = driver
    options.policy = .adaptive(ReceiveThresholds(zeroByteFrom: 8, bufferedUpTo: 4))
    let server = try ThriftyServer(options: options)
    let report = TidalClients(to: server.address, threads: 2, each: 1...6, maximumMessage: 4_096).run(
        turns: 2)
    #expect(report.isWhole)
    #expect(server.stop())
}

@Suite("Chapter 07: the system's own limit", .serialized)
struct Chapter07LockedMemorySystem {
    // I7.1, I7.4
    @Test(
        "mlock and registered buffers run out where the arithmetic says; zero-byte receives lock nothing",
        .enabled(
            if: SystemLimit.canBeShown,
            "the process must be bound by RLIMIT_MEMLOCK (at least 64 pages), or able to become another user"),
        .disabled(if: isSanitized, "a sanitizer makes mlock do nothing"), arguments: DriverKind.permitted)
    func limit(driver: DriverKind) async throws {
        let report = try await onAThread { try SystemLimit.show(driver) }
        #expect(report.posted == SystemLimit.pages)
        #expect(report.locked == SystemLimit.pages)
        #expect(report.error == ENOBUFS)
        #expect(report.zeroByte.posted > SystemLimit.pages)
        #expect(report.zeroByte.locked == 0)
        #expect(report.straddling == 2)
        #expect(report.isAsPredicted, "\(report)")
    }
}
