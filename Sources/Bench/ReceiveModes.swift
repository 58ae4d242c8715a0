import CKernel
import Glibc
import Kernel
import LockedMemory
import Stage

/// What the ways to wait for bytes cost (chapter 07): 64 connections, small, middle and large messages. The server
/// is on the first processor, the clients on the second.
enum ReceiveModes {
    private static let connections = 64
    private static let sizes = [64, 4_096, 65_536]

    static func measure(seconds: Double, into figures: inout Figures) throws {
        for size in sizes {
            for driver in DriverKind.permitted {
                for contender in contenders(size, driver) {
                    ck_pin_thread(0, 0)
                    let (address, stop) = try contender.start()
                    ck_pin_thread(0, 1)
                    let before = Resources.processTime
                    let load = ClientLoad(
                        to: address, connections: connections, messageSize: size, duration: .seconds(seconds))
                    let report = try load.runInChild()
                    let used = Resources.processTime - before
                    stop()
                    figures.add(contender.name, "round trips/s", report.perSecond)
                    let trips = Double(max(1, report.roundTrips))
                    figures.add(
                        "\(contender.name): processor", "µs/round trip", used / .microseconds(1) / trips)
                }
            }
        }
    }

    private static func name(_ mode: String, _ size: Int, _ driver: DriverKind) -> String {
        "\(mode), \(size) bytes, \(driver)"
    }

    private static func contenders(_ size: Int, _ driver: DriverKind) -> [Echo.Contender] {
        var all = ([.buffered, .zeroByte, nil, .mixed(reads: 1)] as [BudgetedReceives.Choice?]).map {
            choice in
            Echo.Contender(name: name(choice?.description ?? "adaptive", size, driver)) {
                var options = BudgetedServer.Options()
                options.hub.workers = 1
                options.hub.concurrency = 1
                options.hub.port.driver = driver
                options.choice = choice
                // What is measured is each way alone: no client is a stream.
                options.hub.maximumReadSize = 0
                if choice == .mixed(reads: 1) { options.hub.pendingReads = 2 }
                // A message fits into a buffer.
                options.bufferSize = size
                let server = try BudgetedServer(options: options)
                return (server.address, { server.stop() })
            }
        }
        if size == sizes[0] { all.append(Echo.port(name("chapter 02", size, driver), driver)) }
        return all
    }

    static func compare(_ figures: inout Figures) {
        for size in sizes {
            for driver in DriverKind.permitted {
                let buffered = name("buffered", size, driver)
                for mode in ["zero-byte", "adaptive", "mixed"] {
                    let other = name(mode, size, driver)
                    figures.compare(other, to: buffered)
                    figures.compare("\(other): processor", to: "\(buffered): processor")
                }
                if size == sizes[0] { figures.compare(buffered, to: name("chapter 02", size, driver)) }
            }
        }
    }
}

/// Clients that rise and fall over the thresholds of the adaptive mode, for half a minute (chapter 07).
enum Tide {
    static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        for driver in DriverKind.permitted {
            var options = BudgetedServer.Options()
            options.hub.port.driver = driver
            options.budgetPages = 128
            let server = try BudgetedServer(options: options)
            let report = TidalClients(to: server.address, threads: 4, each: 5...60, maximumMessage: 32_768)
                .run(for: Stress.time(unlessTold: .seconds(30)))
            let (counters, budget) = (server.hub.counters.reads, server.receives.budget)
            let isClean = server.stop()
            let changes = server.receives.changesMade
            terminal.say(
                "\(driver): \(readable(report.connected)) clients, \(readable(report.messages)) messages, "
                    + "\(readable(report.bytes >> 20)) MiB there and back; the tide turned \(report.turns) times"
            )
            terminal.say(
                "  changes: \(changes.toZeroByte) to zero-byte, \(changes.toBuffered) back; waits "
                    + "\(readable(counters.waits)), packets with bytes \(readable(counters.reads)); "
                    + "most pages locked: \(budget.counters.peak) of \(budget.limit)")
            terminal.say(
                "  checksums that differ: \(report.wrong), messages missing: \(report.missing), "
                    + "not connected: \(report.unconnected); all pages back: \(isClean)")
            holds = holds && report.isWhole && isClean && changes.toZeroByte >= 3 && changes.toBuffered >= 3
        }
        return holds
    }
}
