import AsyncAwait
import AsyncAwaitPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 13: what goes wrong", .serialized)
struct Chapter13AsyncAwaitPitfalls {
    // I13.1 does not hold.
    @Test(
        "limit-is-no-lock: two methods of an actor are inside at once",
        arguments: DriverKind.permitted)
    func limitIsNoLock(driver: DriverKind) async throws {
        try await happens(LimitIsNoLock.pitfall, driver)
    }

    // I13.2 does not hold.
    @Test(
        "hop-per-completion: each message is had on another thread than its completion",
        arguments: DriverKind.permitted)
    func hopPerCompletion(driver: DriverKind) async throws {
        try await happens(HopPerCompletion.pitfall, driver)
    }

    // I13.1 does not hold.
    @Test(
        "blocking-in-a-task: one more task than Swift's pool has threads does not begin",
        arguments: DriverKind.permitted)
    func blockingInATask(driver: DriverKind) async throws {
        try await happens(BlockingInATask.pitfall, driver)
    }

    // I13.4 does not hold.
    @Test(
        "continuation-resumed-twice: the second resume ends the process",
        arguments: DriverKind.permitted)
    func continuationResumedTwice(driver: DriverKind) async throws {
        try await happens(ContinuationResumedTwice.pitfall, driver)
    }

    // The same, without a process in between that says how it ended.
    @Test("continuation-resumed-twice: the second resume is a real trap")
    func continuationResumedTwiceTraps() async {
        await #expect(processExitsWith: .failure) { try ContinuationResumedTwice.crash(.epoll) }
    }

    // I13.4 does not hold.
    @Test(
        "continuation-never-resumed: the task does not return",
        arguments: DriverKind.permitted)
    func continuationNeverResumed(driver: DriverKind) async throws {
        try await happens(ContinuationNeverResumed.pitfall, driver)
    }

    // I13.5 does not hold.
    @Test(
        "cancelled-task-loses-bytes: the byte that had come is gone",
        arguments: DriverKind.permitted)
    func cancelledTaskLosesBytes(driver: DriverKind) async throws {
        try await happens(CancelledTaskLosesBytes.pitfall, driver)
    }

    // I13.3 does not hold.
    @Test(
        "buffer-outlives-its-await: the system writes into a buffer that the task has taken back",
        arguments: DriverKind.permitted)
    func bufferOutlivesItsAwait(driver: DriverKind) async throws {
        try await happens(BufferOutlivesItsAwait.pitfall, driver)
    }

    // I13.7 does not hold.
    @Test(
        "interleaved-awaits: one message lies inside another",
        arguments: DriverKind.permitted)
    func interleavedAwaits(driver: DriverKind) async throws {
        try await happens(InterleavedAwaits.pitfall, driver)
    }

    // I13.6 does not hold.
    @Test(
        "task-per-message: as many tasks as messages, answers out of order",
        arguments: DriverKind.permitted)
    func taskPerMessage(driver: DriverKind) async throws {
        try await happens(TaskPerMessage.pitfall, driver)
    }

    // I13.6 does not hold.
    @Test(
        "slow-consumer: everything that the client sends is kept",
        arguments: DriverKind.permitted)
    func slowConsumer(driver: DriverKind) async throws {
        try await happens(SlowConsumer.pitfall, driver)
    }

    // I13.8 does not hold.
    @Test(
        "shutdown-waits-for-ever: the group of a cancelled task does not end",
        arguments: DriverKind.permitted)
    func shutdownWaitsForEver(driver: DriverKind) async throws {
        try await happens(ShutdownWaitsForEver.pitfall, driver)
    }
}
