import Glibc
import Kernel
import LockedMemory
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
            }
            #expect(report.isWhole, "\(report)")
            #expect(report.turns == 8)
            let changes = server.counters.changes
            #expect(changes.toZeroByte >= 3)
            #expect(changes.toBuffered >= 3)
            #expect(server.stop(), "\(server.counters) \(server.budget.counters)")
        }
    }
}
