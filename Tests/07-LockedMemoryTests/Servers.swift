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
            var options = BudgetedServer.Options()
            options.hub.port.driver = driver
            options.choice = .adaptive(ReceiveThresholds(zeroByteFrom: 24, bufferedUpTo: 10))
            let server = try BudgetedServer(options: options)
            let clients = TidalClients(to: server.address, threads: 2, each: 2...16)
            let report = clients.run(turns: 8) { isHigh in
                // A client's end takes a moment to be noticed.
                let wanted = isHigh ? ReceiveMode.zeroByte : .buffered
                #expect(eventually { server.receives.mode == wanted })
                // No client moves, so none has a buffer when the mode says so. I7.5
                if isHigh { #expect(eventually { server.receives.budget.counters.locked == 0 }) }
            }
            #expect(report.isWhole, "\(report)")
            #expect(report.turns == 8)
            let changes = server.receives.changesMade
            #expect(changes.toZeroByte >= 3)
            #expect(changes.toBuffered >= 3)
            #expect(server.stop(), "\(server.hub.counters) \(server.receives.budget.counters)")
        }
    }

    // I7.2, I7.3
    @Test(
        "a budget for a few and clients for many: in every mode all are served, one after the other",
        arguments: DriverKind.permitted)
    func shortBudget(driver: DriverKind) async throws {
        try await onAThread {
            for choice in [.buffered, .zeroByte, nil] as [BudgetedReceives.Choice?] {
                var options = BudgetedServer.Options()
                options.hub.port.driver = driver
                options.choice = choice
                options.budgetPages = 6
                options.bufferSize = 2 * Page.size
                let server = try BudgetedServer(options: options)
                // Fewer than a page, and more than a buffer: claims of one page and of two.
                let talkers = TidalClients(
                    to: server.address, threads: 2, each: 1...1, maximumMessage: 20_000)
                #expect(talkers.run(turns: 6).isWhole)
                if choice != .buffered {
                    // In buffered mode, clients in the line are not heard before others leave or speak.
                    let many = TidalClients(
                        to: server.address, threads: 2, each: 4...12, maximumMessage: 20_000)
                    let report = many.run(turns: 4)
                    #expect(report.isWhole, "\(String(describing: choice)) \(report)")
                }
                #expect(server.receives.budget.counters.peak <= 6)
                #expect(server.stop(), "\(server.hub.counters) \(server.receives.budget.counters)")
            }
        }
    }

    // I7.2, I7.3, I7.5: with several reads for each connection, as chapter 05 has them.
    @Test(
        "2 and 8 reads pending, in every mode: the tide rises and falls, and every byte and page comes back",
        arguments: DriverKind.permitted, [2, 8])
    func severalReads(driver: DriverKind, reads: Int) async throws {
        try await onAThread {
            let thresholds = ReceiveThresholds(zeroByteFrom: 12, bufferedUpTo: 6)
            let choices: [BudgetedReceives.Choice] = [
                .zeroByte, .adaptive(thresholds), .mixed(reads: reads - 1),
            ]
            for choice in choices {
                var options = BudgetedServer.Options()
                options.hub.port.driver = driver
                options.hub.pendingReads = reads
                options.choice = choice
                options.budgetPages = 40
                let server = try BudgetedServer(options: options)
                let clients = TidalClients(
                    to: server.address, threads: 2, each: 1...8, maximumMessage: 30_000)
                let report = clients.run(turns: 4) { isHigh in
                    if isHigh, case .adaptive = choice {
                        #expect(eventually { server.receives.mode == .zeroByte })
                        #expect(eventually { server.receives.budget.counters.locked == 0 })
                    }
                }
                #expect(report.isWhole, "\(choice) \(report)")
                #expect(server.receives.budget.counters.peak <= 40)
                #expect(server.stop(), "\(choice) \(server.hub.counters) \(server.receives.budget.counters)")
            }
        }
    }

    // I7.2: a slot that is sent back keeps its pages, whatever part of them the bytes fill.
    @Test(
        "two-page buffers, one page comes back, and more bytes wait: both pages are charged, and given back once",
        arguments: DriverKind.permitted)
    func onePageOfTwo(driver: DriverKind) async throws {
        try await onAThread {
            for choice in [.buffered, .zeroByte, nil] as [BudgetedReceives.Choice?] {
                var options = BudgetedServer.Options()
                options.hub.port.driver = driver
                options.choice = choice
                options.bufferSize = 2 * Page.size
                options.budgetPages = 2
                let server = try BudgetedServer(options: options)
                let client = try Socket.connected(to: server.address)
                let locked = choice == .zeroByte ? 0 : 2
                #expect(eventually { server.hub.connectionCount == 1 })
                #expect(eventually { server.receives.budget.counters.locked == locked })
                let page = String(repeating: "p", count: Page.size)
                for _ in 0..<20 {
                    try client.say(page)
                    try client.say(page + page + page)
                    #expect(try client.hear(4 * Page.size) == page + page + page + page)
                }
                #expect(server.receives.budget.counters.peak == locked)
                #expect(eventually { server.receives.budget.counters.locked == locked })
                #expect(server.stop(), "\(server.receives.budget.counters)")
            }
        }
    }

    // I7.3
    @Test(
        "two buffers for twenty clients that all talk: those without one wait for it, and all are served",
        arguments: DriverKind.permitted)
    func fewBuffers(driver: DriverKind) async throws {
        try await onAThread {
            for choice in [.zeroByte, nil] as [BudgetedReceives.Choice?] {
                var options = BudgetedServer.Options()
                options.hub.port.driver = driver
                options.choice = choice
                options.maximumBuffers = 2
                let server = try BudgetedServer(options: options)
                let clients = TidalClients(
                    to: server.address, threads: 2, each: 1...10, maximumMessage: 12_000)
                let report = clients.run(turns: 4)
                #expect(
                    report.isWhole,
                    "\(server.receives.choice) \(report) \(server.receives.withoutBuffer) \(server.receives.slab.counters)"
                )
                #expect(server.receives.slab.counters.peak <= 2)
                #expect(server.stop(), "\(server.hub.counters)")
                #expect(server.receives.withoutBuffer == 0)
            }
        }
    }

    // I7.3
    @Test(
        "buffered: a line of 40 clients for 4 pages; each is served, in its order",
        arguments: DriverKind.permitted)
    func line(driver: DriverKind) async throws {
        try await onAThread {
            var options = BudgetedServer.Options()
            options.hub.port.driver = driver
            options.choice = .buffered
            options.budgetPages = 4
            options.hub.workers = 1
            let server = try BudgetedServer(options: options)
            var clients: [Socket] = []
            for number in 1...40 {
                clients.append(try Socket.connected(to: server.address))
                try #require(eventually { server.hub.counters.opened == number })
            }
            #expect(eventually { server.receives.budget.counters.waiting == 36 })
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
            #expect(server.hub.counters.reasons.isEmpty)
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
            for choice in [.buffered, .zeroByte, nil] as [BudgetedReceives.Choice?] {
                var options = BudgetedServer.Options()
                options.hub.port.driver = driver
                options.choice = choice
                options.budgetPages = budget
                let server = try BudgetedServer(options: options)
                let clients = try IdleClients(count, to: server.address)
                #expect(eventually { server.hub.counters.opened == count })
                if choice == .buffered {
                    #expect(eventually { server.receives.budget.counters.waiting == count - budget })
                    #expect(server.receives.budget.counters.locked == budget)
                    #expect(server.receives.budget.counters.refused == 0)
                } else {
                    #expect(eventually { server.receives.budget.counters.locked == 0 })
                    #expect(server.receives.mode == .zeroByte)
                    #expect(eventually { server.receives.slab.counters.inUse == 0 })
                }
                #expect(server.hub.connectionCount == count)
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
            var options = BudgetedServer.Options()
            options.hub.port.driver = driver
            options.choice = .buffered
            options.budgetPages = 4
            let server = try BudgetedServer(options: options)
            let others = Others()
            defer { others.memory.deallocate() }
            try server.receives.budget.charge(UnsafeRawBufferPointer(others.memory), to: others)
            let clients = try (0..<3).map { _ in try Socket.connected(to: server.address) }
            #expect(eventually { server.receives.budget.counters.waiting == 3 })
            _ = server.stop()
            #expect(server.hub.connectionCount == 0)
            #expect(server.receives.budget.counters.waiting == 0)
            #expect(server.receives.slab.counters.inUse == 0)
            server.receives.budget.refund(others)
            #expect(server.receives.budget.counters.locked == 0)
            withExtendedLifetime(clients) {}
        }
    }

    // I7.6
    @Test(
        "adaptive: a budget that runs short, below the threshold, lets go of the buffers of others",
        arguments: DriverKind.permitted)
    func ranShort(driver: DriverKind) async throws {
        try await onAThread {
            var options = BudgetedServer.Options()
            options.hub.port.driver = driver
            options.choice = .adaptive(ReceiveThresholds(zeroByteFrom: 100, bufferedUpTo: 2))
            options.budgetPages = 4
            let server = try BudgetedServer(options: options)
            var clients: [Socket] = []
            for number in 1...5 {
                clients.append(try Socket.connected(to: server.address))
                #expect(eventually { server.hub.counters.opened == number })
                let locked = number < 5 ? number : 0
                #expect(eventually { server.receives.budget.counters.locked == locked })
            }
            #expect(server.receives.mode == .zeroByte)
            for client in clients.suffix(3) { client.close() }
            #expect(eventually { server.receives.mode == .buffered })
            #expect(server.receives.changesMade == (1, 1))
            #expect(server.stop())
            withExtendedLifetime(clients) {}
        }
    }

    @Test("one connection more than the maximum is closed at once, and impossible options are refused")
    func limits() async throws {
        try await onAThread {
            var options = BudgetedServer.Options()
            options.hub.maximumConnections = 2
            let server = try BudgetedServer(options: options)
            let clients = (0..<3).compactMap { _ in try? Socket.connected(to: server.address) }
            #expect(eventually { server.hub.counters.refused == 1 })
            #expect(server.hub.connectionCount == 2)
            #expect(server.stop())
            withExtendedLifetime(clients) {}

            options.bufferSize = 0
            #expect(throws: SystemError.self) { try BudgetedServer(options: options) }
            options.bufferSize = 2 * Page.size
            options.budgetPages = 1
            #expect(throws: SystemError.self) { try BudgetedServer(options: options) }
            options.budgetPages = 64
            for (over, back) in [(5, 5), (5, 6)] {
                options.choice = .adaptive(ReceiveThresholds(zeroByteFrom: over, bufferedUpTo: back))
                #expect(throws: SystemError.self) { try BudgetedServer(options: options) }
            }
            // Behind the reads of the mixed way there has to be a place for what the wait has told of.
            options.hub.pendingReads = 2
            for reads in [0, 2] {
                options.choice = .mixed(reads: reads)
                #expect(throws: SystemError.self) { try BudgetedServer(options: options) }
            }
            // And at these edges it starts: a buffer as large as the budget, numbers that lie apart by one.
            options.budgetPages = 2
            for choice in [
                .mixed(reads: 1), .adaptive(ReceiveThresholds(zeroByteFrom: 5, bufferedUpTo: 4)), nil,
            ]
                as [BudgetedReceives.Choice?]
            {
                options.choice = choice
                #expect(try BudgetedServer(options: options).stop())
            }
        }
    }

    // I7.2
    @Test(
        "clients that leave in every way, and a server that stops in the middle: every page and buffer is back",
        arguments: DriverKind.permitted)
    func leaving(driver: DriverKind) async throws {
        try await onAThread {
            for choice in [.buffered, .zeroByte, nil] as [BudgetedReceives.Choice?] {
                var options = BudgetedServer.Options()
                options.hub.port.driver = driver
                options.choice = choice
                options.budgetPages = 24
                let server = try BudgetedServer(options: options)
                let ways = LeavingClients.Way.allCases.filter { $0 != .closedByServer }
                let report = LeavingClients(
                    to: server.address, count: 300, threads: 2, together: 10, ways: ways
                )
                .run()
                #expect(report.strange == 0)
                #expect(report.missing == 0, "\(String(describing: choice)) \(report)")
                let open = try (0..<40).map { _ in try Socket.connected(to: server.address) }
                #expect(server.stop(), "\(server.hub.counters) \(server.receives.budget.counters)")
                let counters = server.hub.counters
                #expect(counters.connections == 0)
                #expect(counters.reasons.values.reduce(0, +) == counters.opened)
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
                Resources.openDescriptors <= descriptors && Resources.threads <= threads
            }
            #expect(isAsBefore, "\(descriptors) descriptors and \(threads) threads before")
        }
    }

    // The acceptor is chapter 03's, and rests without a worker.
    @Test("out of descriptors, those inside are answered as always", arguments: names)
    func outOfDescriptors(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let kind = try #require(DriverKind(rawValue: driver))
            var options = BudgetedServer.Options()
            options.hub.port.driver = kind
            let server = try BudgetedServer(options: options)
            let inside = try Socket.connected(to: server.address)
            #expect(inside.isAnswered())
            // A few more are let in, and then there is none left for all the others.
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            limit.rlim_cur = rlim_t(Resources.openDescriptors + 24)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let others = try IdleClients(64, to: server.address)
            let start = monotonicNanoseconds()
            for _ in 0..<20 { #expect(inside.isAnswered(within: .seconds(5))) }
            let took = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
            // A worker that sleeps for each accept that has failed takes 1.2 s for each of them.
            #expect(took < .seconds(6), "20 echoes took \(took)")
            #expect(server.hub.connectionCount < 64)
            others.leave()
            #expect(inside.isAnswered())
            #expect(server.stop())
        }
    }

    // I5.12, I7.2, I7.3
    @Test(
        "64 streams among 200 clients, and 512 pages: the streams grow, none waits, and the others are answered",
        arguments: DriverKind.permitted)
    func streams(driver: DriverKind) async throws {
        try await onAThread {
            var options = BudgetedServer.Options()
            options.hub.port.driver = driver
            options.budgetPages = 512
            let server = try BudgetedServer(options: options)
            let idle = try (0..<136).map { _ in try Socket.connected(to: server.address) }
            let load = ClientLoad(
                to: server.address, connections: 64, messageSize: 65_536, duration: .seconds(30),
                roundTripsEach: 20)
            let report = try load.run()
            #expect(report.silent == 0 && report.roundTrips == 64 * 20)
            let larger = server.hub.largerBuffers.counters
            #expect(larger.peak > 16_384 && larger.peak <= 512 * Page.size / 4, "\(larger)")
            #expect(server.receives.budget.counters.peak <= 512)
            #expect(server.receives.budget.counters.waiting == 0 && server.receives.withoutBuffer == 0)
            for client in idle { #expect(client.isAnswered()) }
            #expect(server.stop())
            #expect(server.hub.largerBuffers.counters.inUse == 0)
        }
    }

    static let names = DriverKind.permitted.map(\.rawValue)
}

/// Another claimant, which has pages of a server's budget.
private final class Others: PageClaimant, @unchecked Sendable {
    var claim = PageClaim()
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 * Page.size, alignment: Page.size)
    func budgetCame() {}
}

/// A server's whole life, with some clients.
private func serve(_ driver: DriverKind) throws {
    var options = BudgetedServer.Options()
    options.hub.port.driver = driver
    options.choice = .adaptive(ReceiveThresholds(zeroByteFrom: 8, bufferedUpTo: 4))
    let server = try BudgetedServer(options: options)
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
