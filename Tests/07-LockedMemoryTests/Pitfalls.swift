import Kernel
import LockedMemoryPitfalls
import Stage
import Testing

@Suite("Chapter 07: what goes wrong", .serialized)
struct Chapter07LockedMemoryPitfalls {
    // I7.1 holds, and that is the trouble: what is posted is locked.
    @Test(
        "locked-memory-exhausted: post number 65 of 100 finds no buffer space",
        arguments: DriverKind.permitted)
    func lockedMemoryExhausted(driver: DriverKind) async throws {
        try await happens(LockedMemoryExhausted.pitfall, driver)
    }

    // I7.1 is not known to the author.
    @Test("page-rounding: 10,000 bytes lock 1,002 pages", arguments: DriverKind.permitted)
    func pageRounding(driver: DriverKind) async throws { try await happens(PageRounding.pitfall, driver) }

    // I7.3 does not hold.
    @Test(
        "enobufs-kills-connection: innocent clients are closed, or never read again",
        arguments: DriverKind.permitted)
    func enobufsKillsConnection(driver: DriverKind) async throws {
        try await happens(ENOBUFSKillsConnection.pitfall, driver)
    }

    // I7.4 does not hold.
    @Test(
        "zero-byte-wake-is-not-eof: the first word of an idle client gets it dropped",
        arguments: DriverKind.permitted)
    func zeroByteWakeIsNotEOF(driver: DriverKind) async throws {
        try await happens(ZeroByteWakeIsNotEOF.pitfall, driver)
    }

    // I7.4 does not hold.
    @Test(
        "blocking-read-after-wake: the only worker waits for bytes that another reader took",
        arguments: DriverKind.permitted)
    func blockingReadAfterWake(driver: DriverKind) async throws {
        try await happens(BlockingReadAfterWake.pitfall, driver)
    }

    // I7.4 does not hold.
    @Test(
        "zero-byte-read-loses-throughput: every page of a message is waited for on its own",
        arguments: DriverKind.permitted)
    func zeroByteReadLosesThroughput(driver: DriverKind) async throws {
        try await happens(ZeroByteReadLosesThroughput.pitfall, driver)
    }

    // I7.6 does not hold.
    @Test(
        "fixed-mode: buffers leave many clients without memory, zero bytes cost a few twice the trips",
        arguments: DriverKind.permitted)
    func fixedMode(driver: DriverKind) async throws { try await happens(FixedMode.pitfall, driver) }

    // I7.2 does not hold.
    @Test(
        "answer-waits-for-idle: the answer's page goes to a client that says nothing",
        arguments: DriverKind.permitted)
    func answerWaitsForIdle(driver: DriverKind) async throws {
        try await happens(AnswerWaitsForIdle.pitfall, driver)
    }

    // I7.5 does not hold.
    @Test(
        "mode-change-keeps-pages: eight idle clients keep eight pages locked", arguments: DriverKind.permitted
    )
    func modeChangeKeepsPages(driver: DriverKind) async throws {
        try await happens(ModeChangeKeepsPages.pitfall, driver)
    }

    // I7.5 does not hold.
    @Test(
        "change-over-is-not-the-end: a change of mode drops every idle client",
        arguments: DriverKind.permitted)
    func changeOverIsNotTheEnd(driver: DriverKind) async throws {
        try await happens(ChangeOverIsNotTheEnd.pitfall, driver)
    }
}
