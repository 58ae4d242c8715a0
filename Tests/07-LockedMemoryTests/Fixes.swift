import Kernel
import LockedMemoryPitfalls
import Stage
import Testing

@Suite("Chapter 07: what does not go wrong any more", .serialized)
struct Chapter07LockedMemoryFixes {
    // I7.2, I7.4
    @Test(
        "locked-memory-exhausted: 100 idle clients lock nothing, and all are answered",
        arguments: DriverKind.permitted)
    func lockedMemoryExhausted(driver: DriverKind) async throws {
        try await holds(LockedMemoryExhausted.pitfall, driver)
    }

    // I7.1
    @Test("page-rounding: a buffer of the slab costs one page, exactly", arguments: DriverKind.permitted)
    func pageRounding(driver: DriverKind) async throws { try await holds(PageRounding.pitfall, driver) }

    // I7.3
    @Test(
        "enobufs-kills-connection: who finds no budget waits in line and is served",
        arguments: DriverKind.permitted)
    func enobufsKillsConnection(driver: DriverKind) async throws {
        try await holds(ENOBUFSKillsConnection.pitfall, driver)
    }

    // I7.4
    @Test(
        "zero-byte-wake-is-not-eof: what was posted decides what 0 means", arguments: DriverKind.permitted)
    func zeroByteWakeIsNotEOF(driver: DriverKind) async throws {
        try await holds(ZeroByteWakeIsNotEOF.pitfall, driver)
    }

    // I7.4
    @Test(
        "blocking-read-after-wake: would-block means wait again", arguments: DriverKind.permitted)
    func blockingReadAfterWake(driver: DriverKind) async throws {
        try await holds(BlockingReadAfterWake.pitfall, driver)
    }

    // I7.4
    @Test(
        "zero-byte-read-loses-throughput: after the notice, read until there is nothing more",
        arguments: DriverKind.permitted)
    func zeroByteReadLosesThroughput(driver: DriverKind) async throws {
        try await holds(ZeroByteReadLosesThroughput.pitfall, driver)
    }

    // I7.5, I7.6
    @Test(
        "fixed-mode: buffers for few, zero bytes for many, and back", arguments: DriverKind.permitted)
    func fixedMode(driver: DriverKind) async throws { try await holds(FixedMode.pitfall, driver) }

    // I7.2, I7.3
    @Test(
        "answer-waits-for-idle: an answer goes out under the charge of its receive",
        arguments: DriverKind.permitted)
    func answerWaitsForIdle(driver: DriverKind) async throws {
        try await holds(AnswerWaitsForIdle.pitfall, driver)
    }

    // I7.5
    @Test(
        "mode-change-keeps-pages: the change asks for the buffers back, and no page stays locked",
        arguments: DriverKind.permitted)
    func modeChangeKeepsPages(driver: DriverKind) async throws {
        try await holds(ModeChangeKeepsPages.pitfall, driver)
    }

    // I7.5
    @Test(
        "change-over-is-not-the-end: a cancelled receive is posted again, and one that was quicker counts",
        arguments: DriverKind.permitted)
    func changeOverIsNotTheEnd(driver: DriverKind) async throws {
        try await holds(ChangeOverIsNotTheEnd.pitfall, driver)
    }
}
