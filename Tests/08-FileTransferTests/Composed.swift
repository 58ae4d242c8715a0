import FileTransferPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 08: the parts of chapters 05 to 08 on one connection", .serialized)
struct Chapter08FileTransferComposed {
    // I5.6, I6.5, I7.2, I8.1
    @Test(
        "messages, ordered answers of three threads, adaptive receives under a page budget and a file each way at once",
        arguments: DriverKind.permitted)
    func composed(driver: DriverKind) async throws {
        let report = try await onAThread { try Composed.run(driver, for: .seconds(1)) }
        #expect(report.faults.isEmpty)
        #expect(report.answers > 0 && report.files.up > 0 && report.files.down > 0)
    }
}
