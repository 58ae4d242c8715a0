import Kernel
import Stage
import Testing
import WorkerPoolsPitfalls

@Suite("Chapter 09: what goes wrong", .serialized)
struct Chapter09WorkerPoolsPitfalls {
    // I9.1 does not hold.
    @Test(
        "computation-on-io-worker: while one client's answer is worked out, the other hears nothing",
        arguments: DriverKind.permitted)
    func computationOnIOWorker(driver: DriverKind) async throws {
        try await happens(ComputationOnIOWorker.pitfall, driver)
    }

    // I9.3 does not hold.
    @Test("unbounded-jobs: the queue holds every question that was sent", arguments: DriverKind.permitted)
    func unboundedJobs(driver: DriverKind) async throws { try await happens(UnboundedJobs.pitfall, driver) }

    // I9.3 does not hold.
    @Test(
        "one-client-fills-the-queue: the other client's job finds no room", arguments: DriverKind.permitted)
    func oneClientFillsTheQueue(driver: DriverKind) async throws {
        try await happens(OneClientFillsTheQueue.pitfall, driver)
    }

    // I9.4 does not hold. Descriptors are the process's: it has one of its own.
    @Test("reply-to-the-departed: the next client hears the answer")
    func replyToTheDeparted() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            let seen = try ReplyToTheDeparted.pitfall.broken(.epoll)
            #expect(seen.happened, "\(seen.lines)")
        }
    }

    // I9.6 does not hold.
    @Test("shrinking-the-pool: jobs that were added are not done")
    func shrinkingThePool() async throws { try await happens(ShrinkingThePool.pitfall, .epoll) }

    // I9.7 does not hold.
    @Test("ui-from-worker: a line has another one in its middle")
    func uiFromWorker() async throws { try await happens(UIFromWorker.pitfall, .epoll) }

    // I9.7 does not hold.
    @Test("screen-waits-for-the-end: the worker waits for the thread that waits for it")
    func screenWaitsForTheEnd() async throws { try await happens(ScreenWaitsForTheEnd.pitfall, .epoll) }
}
