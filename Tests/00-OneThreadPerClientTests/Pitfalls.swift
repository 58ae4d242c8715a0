import Kernel
import OneThreadPerClientPitfalls
import Stage
import Testing

@Suite("Chapter 00: what goes wrong", .serialized)
struct Chapter00OneThreadPerClientPitfalls {
    // I0.2 does not hold. All threads of a process are counted, so it is a process of the test's own.
    @Test(
        "thread-per-client: 1,000 clients take 1,000 threads",
        .enabled(if: Resources.permitsDescriptors(2_500), "the system permits fewer than 2,500 descriptors"))
    func threadPerClient() async {
        await #expect(processExitsWith: .success) {
            let seen = try pitfall("thread-per-client").broken(.epoll)
            #expect(seen.happened, "\(seen.lines)")
        }
    }

    // I0.3 does not hold.
    @Test("blocking-recv-stalls-all: nobody is answered while a silent client is served")
    func blockingRecvStallsAll() async throws {
        let seen = try await onAThread { try pitfall("blocking-recv-stalls-all").broken(.epoll) }
        #expect(seen.happened, "\(seen.lines)")
    }

    // I0.4 does not hold. The time of a whole process is measured.
    @Test("polling-wastes-cpu: ten silent clients take more than half a processor")
    func pollingWastesCPU() async {
        await #expect(processExitsWith: .success) {
            let seen = try pitfall("polling-wastes-cpu").broken(.epoll)
            #expect(seen.happened, "\(seen.lines)")
        }
    }

    // I0.6 does not hold.
    @Test("readiness-is-half-the-job: two are told to read, and the second is stuck in the call")
    func readinessIsHalfTheJob() async throws {
        let seen = try await onAThread { try pitfall("readiness-is-half-the-job").broken(.epoll) }
        #expect(seen.happened, "\(seen.lines)")
    }
}
