import Kernel
import ServersPitfalls
import Stage
import Testing

/// What `bench stress server` does for half a minute, and what `bench servers` measures: here each is short, and in a process of
/// its own, since descriptors and threads are counted.
@Suite("Chapter 11: a server and everybody who may come", .serialized)
struct Chapter11ServersUnderLoad {
    // I11.1, I11.3, I11.4, I11.7
    @Test("clients that leave at random, files and floods: no byte is wrong, and nothing is left")
    func crowd() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            for driver in DriverKind.permitted {
                let report = try Crowd.run(driver, clients: isSanitized ? 50 : 200, for: .seconds(1))
                #expect(report.faults.isEmpty, "\(report.faults)")
                #expect(report.answers > 0 && report.numbered > 0 && report.pauses > 0, "\(report)")
                #expect(report.files.up + report.files.down + report.files.cut > 0, "\(report)")
            }
        }
    }

    // I11.4, I11.6
    @Test(
        "beside a flooder, a slow reader, a silent one, a full address and a banned one the honest are answered",
        arguments: DriverKind.permitted)
    func neighbours(driver: DriverKind) async throws {
        let report = try await onAThread {
            try Neighbours.run(driver, ofOneAddress: isSanitized ? 50 : 500, for: .milliseconds(300))
        }
        #expect(report.faults.isEmpty, "\(report.faults)")
        #expect(report.alone.count > 0 && report.beside.count > 0)
    }
}
