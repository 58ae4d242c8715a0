import Contexts
import Kernel
import Reordering
import Stage
import Testing

@Suite(.serialized)
struct Chapter05ReorderingHub {
    @Test(
        "Every byte comes back, with one and four pending reads, one and two workers, of any size",
        arguments: DriverKind.permitted)
    func echo(driver: DriverKind) throws {
        for (workers, pendingReads) in [(1, 1), (1, 4), (2, 1), (2, 4)] {
            for size in [64, 20_000] {
                var options = StreamHub.Options()
                options.workers = workers
                options.pendingReads = pendingReads
                options.port.driver = driver
                let hub = try StreamHub(options)
                let address = try hub.listen { _ in Echo() }
                let report = try ClientLoad(
                    to: address, connections: 8, messageSize: size, duration: .seconds(20),
                    roundTripsEach: 50
                ).run()
                #expect(report.roundTrips == 400)
                #expect(hub.stop())
                let counters = hub.counters
                #expect(counters.opened == 8 && counters.announced == 8 && counters.released == 8)
                #expect(counters.window.mostWaiting <= pendingReads)
                #expect(counters.chunks.inUse == 0)
            }
        }
    }
}
