import FramingPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 06: what goes wrong", .serialized)
struct Chapter06FramingPitfalls {
    // I6.1 does not hold.
    @Test(
        "chunk-is-not-message: glued messages are lost, a cut one becomes two stumps",
        arguments: DriverKind.permitted)
    func chunkIsNotMessage(driver: DriverKind) async throws {
        try await happens(ChunkIsNotMessage.pitfall, driver)
    }

    // I6.1 does not hold.
    @Test("header-split: bytes that have not come are taken for a length", arguments: DriverKind.permitted)
    func headerSplit(driver: DriverKind) async throws { try await happens(HeaderSplit.pitfall, driver) }

    // I6.3 does not hold.
    @Test(
        "length-lies: a hundred thousand messages in twelve bytes, and gigabytes allocated",
        arguments: DriverKind.permitted)
    func lengthLies(driver: DriverKind) async throws { try await happens(LengthLies.pitfall, driver) }

    // I6.4 does not hold.
    @Test("eof-inside-frame: half an order is taken for no order", arguments: DriverKind.permitted)
    func eofInsideFrame(driver: DriverKind) async throws { try await happens(EOFInsideFrame.pitfall, driver) }

    // I6.5 does not hold.
    @Test(
        "framing-by-two-workers: the second worker begins in the middle of a message",
        arguments: DriverKind.permitted)
    func framingByTwoWorkers(driver: DriverKind) async throws {
        try await happens(FramingByTwoWorkers.pitfall, driver)
    }

    // I6.6 does not hold.
    @Test(
        "text-without-terminator: two letters are shown with the password of an earlier message",
        arguments: DriverKind.permitted)
    func textWithoutTerminator(driver: DriverKind) async throws {
        try await happens(TextWithoutTerminator.pitfall, driver)
    }
}
