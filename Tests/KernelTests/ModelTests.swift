import Glibc
import Kernel
import Stage
import Testing

extension KernelSuite {
    @Suite("against the model") struct Models {
        /// `PORT_SEED` repeats a run. `bench stress` runs more of it.
        @Test("random operations from several threads", arguments: DriverKind.permitted)
        func randomOperations(kind: DriverKind) throws {
            let report = try RandomOperations.run(kind, operations: 100_000)
            if getenv("PORT_SEED") != nil { print(report) }
            #expect(report.operations >= 100_000 && report.connections > 100)
            #expect(report.succeeded > 0 && report.cancelled > 0 && report.failed > 0 && report.bytes > 0)
        }
    }
}
