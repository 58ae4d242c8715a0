import Kernel
import ReorderingPitfalls
import Stage
import Testing

@Suite("Chapter 05: what does not go wrong any more", .serialized)
struct Chapter05ReorderingFixes {
    // I5.1, I5.2
    @Test(
        "out-of-order-receive: chunks come out in the order of their numbers, whoever is slow",
        arguments: DriverKind.permitted)
    func outOfOrderReceive(driver: DriverKind) async throws {
        try await holds(OutOfOrderReceive.pitfall, driver)
    }

    // I5.1
    @Test(
        "number-and-post-not-atomic: number and post are one critical section, and nobody comes in between",
        arguments: DriverKind.permitted)
    func numberAndPostNotAtomic(driver: DriverKind) async throws {
        try await holds(NumberAndPostNotAtomic.pitfall, driver)
    }

    // I5.2
    @Test(
        "close-overtakes-data: the end waits for its turn, behind the last bytes",
        arguments: DriverKind.permitted)
    func closeOvertakesData(driver: DriverKind) async throws {
        try await holds(CloseOvertakesData.pitfall, driver)
    }

    // I5.6
    @Test(
        "out-of-order-send: a ticket taken in the order of the questions is the order of the answers",
        arguments: DriverKind.permitted)
    func outOfOrderSend(driver: DriverKind) async throws { try await holds(OutOfOrderSend.pitfall, driver) }

    // I5.3
    @Test(
        "reorder-grows-without-bound: three wait, with four pending reads, and the rest stays in the socket",
        arguments: DriverKind.permitted)
    func reorderGrowsWithoutBound(driver: DriverKind) async throws {
        try await holds(ReorderGrowsWithoutBound.pitfall, driver)
    }

    // I5.5
    @Test(
        "one-pending-read-is-slow: the second worker takes three more chunks meanwhile",
        arguments: DriverKind.permitted)
    func onePendingReadIsSlow(driver: DriverKind) async throws {
        try await holds(OnePendingReadIsSlow.pitfall, driver)
    }

    // I5.4
    @Test(
        "sequence-wraps: the window, and a stream, go through the end of the numbers",
        arguments: DriverKind.permitted)
    func sequenceWraps(driver: DriverKind) async throws { try await holds(SequenceWraps.pitfall, driver) }

    // I5.7
    @Test(
        "reorder-buffer-leak: what waits when the connection ends is back in the pool",
        arguments: DriverKind.permitted)
    func reorderBufferLeak(driver: DriverKind) async throws {
        try await holds(ReorderBufferLeak.pitfall, driver)
    }

    // I5.2
    @Test(
        "reorder-window-unlocked: 20,000 chunks by four workers, each delivered once and in order",
        arguments: DriverKind.permitted)
    func reorderWindowUnlocked(driver: DriverKind) async throws {
        try await holds(ReorderWindowUnlocked.pitfall, driver)
    }

    // I5.6
    @Test("partial-send: all of it arrives before what was sent behind it", arguments: DriverKind.permitted)
    func partialSend(driver: DriverKind) async throws { try await holds(PartialSend.pitfall, driver) }

    // I5.6
    @Test("sends-interleave: the short message comes behind the long one", arguments: DriverKind.permitted)
    func sendsInterleave(driver: DriverKind) async throws { try await holds(SendsInterleave.pitfall, driver) }

    // I5.1, I5.2
    @Test(
        "hub-drops-first-data: what came with the accept is handed over first, in order",
        arguments: DriverKind.permitted)
    func hubDropsFirstData(driver: DriverKind) async throws {
        try await holds(HubDropsFirstData.pitfall, driver)
    }

    // I5.12
    @Test(
        "large-buffer-for-each-client: who sends much is read in large pieces, and who is silent has a small one",
        arguments: DriverKind.permitted)
    func largeBufferForEachClient(driver: DriverKind) async throws {
        try await holds(LargeBufferForEachClient.pitfall, driver)
    }

    // I5.12
    @Test(
        "fresh-buffer-for-each-read: larger buffers are used again, with their pages",
        arguments: DriverKind.permitted)
    func freshBufferForEachRead(driver: DriverKind) async throws {
        try await holds(FreshBufferForEachRead.pitfall, driver)
    }
}
