import AsyncAwait
import AsyncAwaitPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 13: what does not go wrong any more", .serialized)
struct Chapter13AsyncAwaitFixes {
    // I13.1
    @Test(
        "limit-is-no-lock: an actor without an executor of its own lets one in, on the same port",
        arguments: DriverKind.permitted)
    func limitIsNoLock(driver: DriverKind) async throws {
        try await holds(LimitIsNoLock.pitfall, driver)
    }

    // I13.2
    @Test(
        "hop-per-completion: each message is had on its completion's own worker, without a packet",
        arguments: DriverKind.permitted)
    func hopPerCompletion(driver: DriverKind) async throws {
        try await holds(HopPerCompletion.pitfall, driver)
    }

    // I13.1
    @Test(
        "blocking-in-a-task: the port sees the blocked workers, and lets another one run",
        arguments: DriverKind.permitted)
    func blockingInATask(driver: DriverKind) async throws {
        try await holds(BlockingInATask.pitfall, driver)
    }

    // I13.4
    @Test(
        "continuation-resumed-twice: two hundred races of a byte and a cancel, each ended once",
        arguments: DriverKind.permitted)
    func continuationResumedTwice(driver: DriverKind) async throws {
        try await holds(ContinuationResumedTwice.pitfall, driver)
    }

    // I13.4
    @Test(
        "continuation-never-resumed: the refused post is thrown, and the operation is free",
        arguments: DriverKind.permitted)
    func continuationNeverResumed(driver: DriverKind) async throws {
        try await holds(ContinuationNeverResumed.pitfall, driver)
    }

    // I13.5
    @Test(
        "cancelled-task-loses-bytes: the byte that had come is the task's",
        arguments: DriverKind.permitted)
    func cancelledTaskLosesBytes(driver: DriverKind) async throws {
        try await holds(CancelledTaskLosesBytes.pitfall, driver)
    }

    // I13.3
    @Test(
        "buffer-outlives-its-await: the await returns with the packet, and nothing writes behind it",
        arguments: DriverKind.permitted)
    func bufferOutlivesItsAwait(driver: DriverKind) async throws {
        try await holds(BufferOutlivesItsAwait.pitfall, driver)
    }

    // I13.7
    @Test(
        "interleaved-awaits: a message is one call, and stays whole",
        arguments: DriverKind.permitted)
    func interleavedAwaits(driver: DriverKind) async throws {
        try await holds(InterleavedAwaits.pitfall, driver)
    }

    // I13.6
    @Test(
        "task-per-message: one task, answers in order",
        arguments: DriverKind.permitted)
    func taskPerMessage(driver: DriverKind) async throws {
        try await holds(TaskPerMessage.pitfall, driver)
    }

    // I13.6
    @Test(
        "slow-consumer: no more is read than the pending reads hold",
        arguments: DriverKind.permitted)
    func slowConsumer(driver: DriverKind) async throws {
        try await holds(SlowConsumer.pitfall, driver)
    }

    // I13.8, I13.9
    @Test(
        "shutdown-waits-for-ever: run returns with a child in every state, and nothing is left",
        arguments: DriverKind.permitted)
    func shutdownWaitsForEver(driver: DriverKind) async throws {
        try await holds(ShutdownWaitsForEver.pitfall, driver)
    }
}
