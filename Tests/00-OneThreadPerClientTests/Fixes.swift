import Kernel
import OneThreadPerClientPitfalls
import Stage
import Testing

@Suite("Chapter 00: what does not go wrong any more", .serialized)
struct Chapter00OneThreadPerClientFixes {
    // I0.2
    @Test(
        "thread-per-client: the number of threads stays, from 1 to 1,000 clients",
        .enabled(if: Resources.permitsDescriptors(2_500), "the system permits fewer than 2,500 descriptors"),
        arguments: names)
    func threadPerClient(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let seen = try pitfall("thread-per-client").fixed(try #require(DriverKind(rawValue: driver)))
            #expect(!seen.happened, "\(seen.lines)")
        }
    }

    // I0.3
    @Test("blocking-recv-stalls-all: a silent client delays nobody", arguments: DriverKind.permitted)
    func blockingRecvStallsAll(driver: DriverKind) async throws {
        let seen = try await onAThread { try pitfall("blocking-recv-stalls-all").fixed(driver) }
        #expect(!seen.happened, "\(seen.lines)")
    }

    // I0.4
    @Test("polling-wastes-cpu: ten silent clients take no processor time", arguments: names)
    func pollingWastesCPU(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            let seen = try pitfall("polling-wastes-cpu").fixed(try #require(DriverKind(rawValue: driver)))
            #expect(!seen.happened, "\(seen.lines)")
        }
    }

    // I0.6
    @Test(
        "readiness-is-half-the-job: at the notice the bytes are in the buffer",
        arguments: DriverKind.permitted)
    func readinessIsHalfTheJob(driver: DriverKind) async throws {
        let seen = try await onAThread { try pitfall("readiness-is-half-the-job").fixed(driver) }
        #expect(!seen.happened, "\(seen.lines)")
    }

    /// The drivers, as another process can be told of them.
    static let names = DriverKind.permitted.map(\.rawValue)
}
