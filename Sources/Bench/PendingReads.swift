import CKernel
import CompletionPorts
import Glibc
import Kernel
import Reordering
import Stage

/// What several pending reads bring, and what order costs (chapter 05): echo with 1, 4 and 8 of them, and 1, 2 and 4
/// workers, beside chapter 02's server, which has one operation for each connection and needs no order.
enum PendingReads {
    /// Small messages on many connections, and large ones on a few.
    private static let loads = [
        Load(size: 64, clients: 64, name: "64 bytes"), Load(size: 65_536, clients: 4, name: "64 KiB"),
    ]
    private static let reads = [1, 4, 8]
    private static let rawEcho = "raw echo, 64 bytes"

    private struct Load {
        let size: Int
        let clients: Int
        let name: String
    }

    private static func name(
        _ pendingReads: Int, _ workers: Int, _ load: String, _ driver: DriverKind = .epoll
    )
        -> String
    {
        "\(pendingReads) pending, \(workers) \(workers == 1 ? "worker" : "workers"), \(load)"
            + (driver == .epoll ? "" : ", \(driver)")
    }

    /// One worker has the first processor for itself. Several run wherever there is room, which is the clients' processor.
    ///
    /// - Parameter isShort: Only what the promise is about: small messages and one worker.
    static func measure(seconds: Double, isShort: Bool = false, into figures: inout Figures) throws {
        // Its buffers are made for small messages.
        try run(rawEcho, loads[0], 1, seconds, &figures) {
            var options = EchoServer.Options()
            options.port.driver = .epoll
            options.concurrency = 1
            let server = try EchoServer(options: options)
            return (server.address, { server.stop() })
        }
        for load in isShort ? Array(loads.prefix(1)) : loads {
            for workers in isShort ? [1] : [1, 2, 4] {
                for pending in reads { try hub(pending, workers, load, .epoll, seconds, &figures) }
            }
            if DriverKind.permitted.contains(.ioUring) {
                for pending in reads { try hub(pending, 1, load, .ioUring, seconds, &figures) }
            }
        }
    }

    private static func hub(
        _ pending: Int, _ workers: Int, _ load: Load, _ driver: DriverKind,
        _ seconds: Double, _ figures: inout Figures
    ) throws {
        try run(name(pending, workers, load.name, driver), load, workers, seconds, &figures) {
            var options = StreamHub.Options()
            options.workers = workers
            options.concurrency = workers
            // As the raw echo does.
            options.batch = 16
            options.pendingReads = pending
            options.chunkCapacity = max(1024, load.size)
            options.maximumReadSize = options.chunkCapacity
            options.port.driver = driver
            let hub = try StreamHub(options)
            let address = try hub.listen { _ in Reordering.Echo() }
            return (address, { hub.stop() })
        }
    }

    private static func run(
        _ name: String, _ load: Load, _ workers: Int, _ seconds: Double,
        _ figures: inout Figures, start: () throws -> (Address, () -> Void)
    ) throws {
        ck_pin_thread(0, 0)
        let (address, stop) = try start()
        if workers > 1 { Echo.unpinThreads() }
        ck_pin_thread(0, 1)
        let before = Resources.processTime
        let report = try ClientLoad(
            to: address, connections: load.clients, messageSize: load.size, duration: .seconds(seconds)
        ).runInChild()
        let used = Resources.processTime - before
        stop()
        figures.add(name, "round trips/s", report.perSecond)
        figures.add(
            "\(name): processor", "µs/round trip", used / .microseconds(1) / Double(max(1, report.roundTrips))
        )
    }

    static func compare(_ figures: inout Figures) {
        figures.compare(name(1, 1, loads[0].name), to: rawEcho, .atLeast(0.9))
        for load in loads {
            for (workers, driver) in [(1, DriverKind.epoll), (2, .epoll), (4, .epoll), (1, .ioUring)] {
                for pending in reads.dropFirst() {
                    let isPromised = load.size == 64 && workers == 1 && pending == 4 && driver == .epoll
                    figures.compare(
                        name(pending, workers, load.name, driver), to: name(1, workers, load.name, driver),
                        isPromised ? .atLeast(0.95) : nil)
                    if workers == 1 {
                        figures.compare(
                            "\(name(pending, workers, load.name, driver)): processor",
                            to: "\(name(1, workers, load.name, driver)): processor")
                    }
                }
            }
        }
    }
}
