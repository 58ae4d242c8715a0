import FileTransferPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 08: what does not go wrong any more", .serialized)
struct Chapter08FileTransferFixes {
    // I8.1
    @Test(
        "send-during-file-transfer: messages go between its pieces, or are refused",
        arguments: DriverKind.permitted)
    func sendDuringFileTransfer(driver: DriverKind) async throws {
        try await holds(SendDuringFileTransfer.pitfall, driver)
    }

    // I8.1
    @Test(
        "one-file-at-a-time: one after the other on a connection, side by side on two",
        arguments: DriverKind.permitted)
    func oneFileAtATime(driver: DriverKind) async throws { try await holds(OneFileAtATime.pitfall, driver) }

    // I8.4
    @Test(
        "transmit-2gb-limit: pieces within the limit, and sizes of 64 bits", arguments: DriverKind.permitted)
    func transmit2GBLimit(driver: DriverKind) async throws {
        try await holds(Transmit2GBLimit.pitfall, driver)
    }

    // I8.3
    @Test(
        "handshake-never-answered: after a while both sides hear that it came to nothing",
        arguments: DriverKind.permitted)
    func handshakeNeverAnswered(driver: DriverKind) async throws {
        try await holds(HandshakeNeverAnswered.pitfall, driver)
    }

    // I8.4
    @Test(
        "file-opened-exclusively: read beside others, and a change of length is an error on both sides",
        arguments: DriverKind.permitted)
    func fileOpenedExclusively(driver: DriverKind) async throws {
        try await holds(FileOpenedExclusively.pitfall, driver)
    }

    // I8.4
    @Test(
        "announced-size-lies: more, fewer, other bytes and impossible sizes are refused",
        arguments: DriverKind.permitted)
    func announcedSizeLies(driver: DriverKind) async throws {
        try await holds(AnnouncedSizeLies.pitfall, driver)
    }

    // I8.3, I8.4
    @Test(
        "abort-leaves-mode: whoever calls it off, nothing is left and the next file is taken",
        arguments: DriverKind.permitted)
    func abortLeavesMode(driver: DriverKind) async throws { try await holds(AbortLeavesMode.pitfall, driver) }

    // I8.5
    @Test("path-escape: names that are none are refused", arguments: DriverKind.permitted)
    func pathEscape(driver: DriverKind) async throws { try await holds(PathEscape.pitfall, driver) }

    // I8.4, I8.6
    @Test(
        "disk-full: both sides are told, before the first byte or in the middle, and nothing is left",
        arguments: DriverKind.permitted)
    func diskFull(driver: DriverKind) async throws { try await holds(DiskFull.pitfall, driver) }

    // I8.8
    @Test(
        "one-announcement-keeps-the-disk: a share for each address, a slowest rate, and both are told",
        arguments: DriverKind.permitted)
    func oneAnnouncementKeepsTheDisk(driver: DriverKind) async throws {
        try await holds(OneAnnouncementKeepsTheDisk.pitfall, driver)
    }

    // I8.7
    @Test(
        "file-write-blocks-worker: others are answered while the disk is held",
        arguments: DriverKind.permitted)
    func fileWriteBlocksWorker(driver: DriverKind) async throws {
        try await holds(FileWriteBlocksWorker.pitfall, driver)
    }
}
