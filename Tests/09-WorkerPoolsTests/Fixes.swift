import Kernel
import Stage
import Testing
import WorkerPoolsPitfalls

@Suite("Chapter 09: what does not go wrong any more", .serialized)
struct Chapter09WorkerPoolsFixes {
    // I9.1
    @Test(
        "computation-on-io-worker: as a job it holds nobody up", arguments: DriverKind.permitted)
    func computationOnIOWorker(driver: DriverKind) async throws {
        try await holds(ComputationOnIOWorker.pitfall, driver)
    }

    // I9.3
    @Test(
        "unbounded-jobs: the queue keeps its bound, the rest waits at the client, each is answered once",
        arguments: DriverKind.permitted)
    func unboundedJobs(driver: DriverKind) async throws { try await holds(UnboundedJobs.pitfall, driver) }

    // I9.3
    @Test(
        "one-client-fills-the-queue: with a share for each, the other's job is taken",
        arguments: DriverKind.permitted)
    func oneClientFillsTheQueue(driver: DriverKind) async throws {
        try await holds(OneClientFillsTheQueue.pitfall, driver)
    }

    // I9.4
    @Test(
        "reply-to-the-departed: a name finds nobody, and the answer is dropped and counted",
        arguments: DriverKind.permitted)
    func replyToTheDeparted(driver: DriverKind) async throws {
        try await holds(ReplyToTheDeparted.pitfall, driver)
    }

    // I9.6
    @Test("shrinking-the-pool: workers end after their jobs, and every job is done once")
    func shrinkingThePool() async throws { try await holds(ShrinkingThePool.pitfall, .epoll) }

    // I9.7
    @Test("ui-from-worker: one thread writes whole lines, and a stuck screen stops nobody")
    func uiFromWorker() async throws { try await holds(UIFromWorker.pitfall, .epoll) }

    // I9.7
    @Test("screen-waits-for-the-end: last words go to a queue that is stopped last")
    func screenWaitsForTheEnd() async throws { try await holds(ScreenWaitsForTheEnd.pitfall, .epoll) }
}
