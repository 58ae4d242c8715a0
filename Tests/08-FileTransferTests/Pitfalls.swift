import FileTransferPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 08: what goes wrong", .serialized)
struct Chapter08FileTransferPitfalls {
    // I8.1 does not hold.
    @Test(
        "send-during-file-transfer: a message lands in the middle of the file",
        arguments: DriverKind.permitted)
    func sendDuringFileTransfer(driver: DriverKind) async throws {
        try await happens(SendDuringFileTransfer.pitfall, driver)
    }

    // I8.1 does not hold.
    @Test("one-file-at-a-time: two files at once get each other's bytes", arguments: DriverKind.permitted)
    func oneFileAtATime(driver: DriverKind) async throws { try await happens(OneFileAtATime.pitfall, driver) }

    // I8.4 does not hold.
    @Test(
        "transmit-2gb-limit: one call moves less than was asked, or the low half of the size",
        arguments: DriverKind.permitted)
    func transmit2GBLimit(driver: DriverKind) async throws {
        try await happens(Transmit2GBLimit.pitfall, driver)
    }

    // I8.3 does not hold.
    @Test("handshake-never-answered: without an answer the sender stays in file mode")
    func handshakeNeverAnswered() async throws { try await happens(HandshakeNeverAnswered.pitfall, .epoll) }

    // I8.4 does not hold.
    @Test(
        "file-opened-exclusively: a file in use cannot be opened, and a shortened one leaves the receiver waiting",
        arguments: DriverKind.permitted)
    func fileOpenedExclusively(driver: DriverKind) async throws {
        try await happens(FileOpenedExclusively.pitfall, driver)
    }

    // I8.4 does not hold.
    @Test("announced-size-lies: 5,000 bytes are kept where 100 were announced, and 100 where 5,000 were")
    func announcedSizeLies() async throws { try await happens(AnnouncedSizeLies.pitfall, .epoll) }

    // I8.3 does not hold.
    @Test("abort-leaves-mode: the half file stays, open and under its name, and the next one is refused")
    func abortLeavesMode() async throws { try await happens(AbortLeavesMode.pitfall, .epoll) }

    // I8.5 does not hold.
    @Test("path-escape: the file arrives beside the folder")
    func pathEscape() async throws { try await happens(PathEscape.pitfall, .epoll) }

    // I8.4, I8.6 does not hold.
    @Test("disk-full: the part that fitted is kept and verified")
    func diskFull() async throws { try await happens(DiskFull.pitfall, .epoll) }

    // I8.8 does not hold.
    @Test("one-announcement-keeps-the-disk: a byte every 20 seconds keeps everybody out for an hour")
    func oneAnnouncementKeepsTheDisk() async throws {
        try await happens(OneAnnouncementKeepsTheDisk.pitfall, .epoll)
    }

    // I8.7 does not hold.
    @Test(
        "file-write-blocks-worker: nobody is answered while the worker waits for the disk",
        arguments: DriverKind.permitted)
    func fileWriteBlocksWorker(driver: DriverKind) async throws {
        try await happens(FileWriteBlocksWorker.pitfall, driver)
    }
}
