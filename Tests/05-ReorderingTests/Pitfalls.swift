import Kernel
import ReorderingPitfalls
import Stage
import Testing

@Suite("Chapter 05: what goes wrong", .serialized)
struct Chapter05ReorderingPitfalls {
    // I5.1, I5.2
    @Test(
        "out-of-order-receive: two workers take two chunks, and the later one comes out first",
        arguments: DriverKind.permitted)
    func outOfOrderReceive(driver: DriverKind) async throws {
        try await happens(OutOfOrderReceive.pitfall, driver)
    }

    // I5.1
    @Test(
        "number-and-post-not-atomic: numbers say one order, and the data another",
        arguments: DriverKind.permitted)
    func numberAndPostNotAtomic(driver: DriverKind) async throws {
        try await happens(NumberAndPostNotAtomic.pitfall, driver)
    }

    // I5.2
    @Test(
        "close-overtakes-data: the end is processed first, and the last bytes are dropped",
        arguments: DriverKind.permitted)
    func closeOvertakesData(driver: DriverKind) async throws {
        try await happens(CloseOvertakesData.pitfall, driver)
    }

    // I5.6
    @Test("out-of-order-send: who is ready first is heard first", arguments: DriverKind.permitted)
    func outOfOrderSend(driver: DriverKind) async throws { try await happens(OutOfOrderSend.pitfall, driver) }

    // I5.3
    @Test("reorder-grows-without-bound: 499 chunks pile up behind one", arguments: DriverKind.permitted)
    func reorderGrowsWithoutBound(driver: DriverKind) async throws {
        try await happens(ReorderGrowsWithoutBound.pitfall, driver)
    }

    // I5.5
    @Test(
        "one-pending-read-is-slow: while the handler is busy, everything else waits in the socket",
        arguments: DriverKind.permitted)
    func onePendingReadIsSlow(driver: DriverKind) async throws {
        try await happens(OnePendingReadIsSlow.pitfall, driver)
    }

    // I5.4
    @Test(
        "sequence-wraps: a list sorted by 'smaller' stands still at the end of the numbers",
        arguments: DriverKind.permitted)
    func sequenceWraps(driver: DriverKind) async throws { try await happens(SequenceWraps.pitfall, driver) }

    // I5.7
    @Test("reorder-buffer-leak: two chunks that wait are never given back", arguments: DriverKind.permitted)
    func reorderBufferLeak(driver: DriverKind) async throws {
        try await happens(ReorderBufferLeak.pitfall, driver)
    }

    // I5.2
    @Test(
        "reorder-window-unlocked: two workers find the same chunk, and it is delivered twice",
        arguments: DriverKind.permitted)
    func reorderWindowUnlocked(driver: DriverKind) async throws {
        try await happens(ReorderWindowUnlocked.pitfall, driver)
    }

    // I5.6
    @Test("partial-send: the rest of a send is dropped", arguments: DriverKind.permitted)
    func partialSend(driver: DriverKind) async throws { try await happens(PartialSend.pitfall, driver) }

    // I5.6
    @Test("sends-interleave: a short message lands inside a long one", arguments: DriverKind.permitted)
    func sendsInterleave(driver: DriverKind) async throws {
        try await happens(SendsInterleave.pitfall, driver)
    }

    // I5.1, I5.2
    @Test("hub-drops-first-data: the first message of each client vanishes", arguments: DriverKind.permitted)
    func hubDropsFirstData(driver: DriverKind) async throws {
        try await happens(HubDropsFirstData.pitfall, driver)
    }

    // I5.12
    @Test(
        "large-buffer-for-each-client: what one client needs lies idle for fifty",
        arguments: DriverKind.permitted)
    func largeBufferForEachClient(driver: DriverKind) async throws {
        try await happens(LargeBufferForEachClient.pitfall, driver)
    }

    // I5.12
    @Test("fresh-buffer-for-each-read: the system makes every page anew", arguments: DriverKind.permitted)
    func freshBufferForEachRead(driver: DriverKind) async throws {
        try await happens(FreshBufferForEachRead.pitfall, driver)
    }
}
