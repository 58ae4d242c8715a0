import CKernel
import CompletionPorts
import Glibc
import Kernel
import Stage

/// Echo round trips: the server on the first processor, the clients in a process of their own on the second.
enum Echo {
    /// One server to measure.
    struct Contender {
        let name: String
        /// Starts it; returns its address and what stops it.
        let start: () throws -> (Address, () -> Void)
    }

    static func contenders(_ connections: Int) -> [Contender] {
        var all = [Contender(name: "plain loop", start: { start(try PlainLoop()) })]
        for driver in DriverKind.permitted {
            all.append(port("port, \(driver)", driver))
            if connections == 1 {
                all.append(port("port, \(driver), polling", driver, polling: .microseconds(50)))
            }
        }
        if connections == 64 {
            // As many workers as this machine has processors, and twice as many, of which one half may run.
            // On the same processor as everybody else, so that like is compared with like; and wherever there is room,
            // which is the clients' processor.
            for place in ["", spread] {
                all.append(port("port, epoll, 2 workers\(place)", .epoll, workers: 2, concurrency: 2))
                all.append(port("port, epoll, 4 workers\(place)", .epoll, workers: 4, concurrency: 2))
            }
            if DriverKind.permitted.contains(.ioUring) {
                all.append(port("port, io_uring, deferred", .ioUring, submission: .withNextWait))
            }
        }
        if connections <= 1_000 { all.append(threadPerClient) }
        return all
    }

    private static let spread = " on both processors"

    private static func start(_ server: PlainLoop) -> (Address, () -> Void) {
        (server.address, { server.stop() })
    }

    static func port(
        _ name: String, _ driver: DriverKind, workers: Int = 1, concurrency: Int = 1,
        polling: Duration = .zero,
        submission: Submission = .atOnce
    ) -> Contender {
        Contender(name: name) {
            var options = EchoServer.Options()
            options.workers = workers
            options.concurrency = concurrency
            options.port.driver = driver
            options.port.pollBeforeSleep = polling
            options.port.submission = submission
            let server = try EchoServer(options: options)
            return (server.address, { server.stop() })
        }
    }

    static func measure(_ connections: Int, seconds: Double, into figures: inout Figures) throws {
        for contender in contenders(connections) {
            // Threads inherit the processor of the one that starts them.
            ck_pin_thread(0, 0)
            let (address, stop) = try contender.start()
            if contender.name.contains(spread) { unpinThreads() }
            ck_pin_thread(0, 1)
            let before = Resources.processTime
            let load = ClientLoad(
                to: address, connections: connections, messageSize: 64, duration: .seconds(seconds),
                connectLimit: .seconds(60))
            let report = try load.runInChild()
            let used = Resources.processTime - before
            stop()
            let name = "\(contender.name), \(connections)"
            figures.add(name, "round trips/s", report.perSecond)
            let trips = Double(max(1, report.roundTrips))
            figures.add("\(name): processor", "µs/round trip", used / .microseconds(1) / trips)
            figures.add("\(name): p99", "µs", report.latency.percentile(99) / .microseconds(1))
        }
    }

    /// Several workers may run wherever there is room.
    static func unpinThreads() {
        guard let directory = opendir("/proc/self/task") else { return }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let thread = Int32(name) { ck_unpin_thread(thread) }
        }
    }

    static func compare(_ figures: inout Figures, _ connections: Int) {
        let floor = "plain loop, \(connections)"
        for driver in DriverKind.permitted {
            let name = "port, \(driver), \(connections)"
            let isMain = driver == .epoll
            switch connections {
            case 1:
                figures.compare(name, to: floor, isMain ? .atLeast(0.95) : nil)
                figures.compare("port, \(driver), polling, 1", to: floor, isMain ? .atLeast(2.0) : nil)
                figures.compare("port, \(driver), polling, 1: processor", to: "\(floor): processor", nil)
            case 10_000: figures.compare(name, to: floor, isMain ? .atLeast(0.95) : nil)
            default:
                figures.compare(name, to: floor, isMain ? .atLeast(0.97) : nil)
                figures.compare("\(name): processor", to: "\(floor): processor", isMain ? .atMost(1.08) : nil)
                figures.compare("\(name): p99", to: "\(floor): p99", isMain ? .atMost(1.2) : nil)
            }
        }
        if connections == 64 {
            figures.compare("port, epoll, 2 workers, 64", to: "port, epoll, 64", .atLeast(0.9))
            figures.compare("port, epoll, 2 workers\(spread), 64", to: "port, epoll, 64")
        }
    }
}
