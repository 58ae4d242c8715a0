import Kernel
import Stage
import Testing
import ThreadPoolIO
import ThreadPoolIOPitfalls

@Suite("Chapter 10: what does not go wrong any more", .serialized)
struct Chapter10ThreadPoolIOFixes {
    // I10.3
    @Test(
        "start-not-announced: posting announces, and what was posted past the object is counted",
        arguments: DriverKind.permitted)
    func startNotAnnounced(driver: DriverKind) async throws {
        try await holds(StartNotAnnounced.pitfall, driver)
    }

    // I10.3
    @Test("cancel-not-announced: a failed post takes its announcement back", arguments: DriverKind.permitted)
    func cancelNotAnnounced(driver: DriverKind) async throws {
        try await holds(CancelNotAnnounced.pitfall, driver)
    }

    // I10.5
    @Test(
        "close-with-callbacks-running: socket, callbacks, object: freed when the callback has returned",
        arguments: DriverKind.permitted)
    func closeWithCallbacksRunning(driver: DriverKind) async throws {
        try await holds(CloseWithCallbacksRunning.pitfall, driver)
    }

    // I10.5
    @Test(
        "wait-inside-callback: refused for object, group and pool; closing is not",
        arguments: DriverKind.permitted)
    func waitInsideCallback(driver: DriverKind) async throws {
        try await holds(WaitInsideCallback.pitfall, driver)
    }

    // I10.2
    @Test(
        "callback-blocks-pool: the pool grows up to its maximum, and shrinks again",
        arguments: DriverKind.permitted)
    func callbackBlocksPool(driver: DriverKind) async throws {
        try await holds(CallbackBlocksPool.pitfall, driver)
    }

    // I10.7
    @Test("message-longer-than-buffer: a line that is too long is refused", arguments: DriverKind.permitted)
    func messageLongerThanBuffer(driver: DriverKind) async throws {
        try await holds(MessageLongerThanBuffer.pitfall, driver)
    }
}
