import Kernel
import Stage
import Testing
import ThreadPoolIO
import ThreadPoolIOPitfalls

@Suite("Chapter 10: what goes wrong", .serialized)
struct Chapter10ThreadPoolIOPitfalls {
    // I10.3 does not hold.
    @Test(
        "start-not-announced: the completion calls nobody, and the next one's account is wrong",
        arguments: DriverKind.permitted)
    func startNotAnnounced(driver: DriverKind) async throws {
        try await happens(StartNotAnnounced.pitfall, driver)
    }

    // I10.3 does not hold.
    @Test("cancel-not-announced: waiting does not return", arguments: DriverKind.permitted)
    func cancelNotAnnounced(driver: DriverKind) async throws {
        try await happens(CancelNotAnnounced.pitfall, driver)
    }

    // I10.5 does not hold.
    @Test(
        "close-with-callbacks-running: the callback's touch ends the process", arguments: DriverKind.permitted
    )
    func closeWithCallbacksRunning(driver: DriverKind) async throws {
        try await happens(CloseWithCallbacksRunning.pitfall, driver)
    }

    // The same, without a process in between that says how it ended.
    @Test("close-with-callbacks-running: the touch is a real access violation")
    func closeWithCallbacksRunningCrashes() async {
        await #expect(processExitsWith: .failure) { try CloseWithCallbacksRunning.crash(.epoll) }
    }

    // I10.5 does not hold.
    @Test("wait-inside-callback: the callback waits for itself")
    func waitInsideCallback() async throws { try await happens(WaitInsideCallback.pitfall, .epoll) }

    // I10.2 does not hold.
    @Test("callback-blocks-pool: with two threads and two blocked callbacks the third does not begin")
    func callbackBlocksPool() async throws { try await happens(CallbackBlocksPool.pitfall, .epoll) }

    // I10.7 does not hold.
    @Test("message-longer-than-buffer: the first byte too many ends the process")
    func messageLongerThanBuffer() async throws { try await happens(MessageLongerThanBuffer.pitfall, .epoll) }

    @Test("message-longer-than-buffer: the byte is a real access violation")
    func messageLongerThanBufferCrashes() async {
        await #expect(processExitsWith: .failure) { try MessageLongerThanBuffer.crash(.epoll) }
    }
}
