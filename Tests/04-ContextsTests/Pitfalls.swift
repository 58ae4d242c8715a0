import ContextsPitfalls
import Kernel
import Stage
import Testing

@Suite("Chapter 04: what goes wrong", .serialized)
struct Chapter04ContextsPitfalls {
    // I4.1 does not hold.
    @Test(
        "which-operation: by the key alone, sent bytes are counted as received",
        arguments: DriverKind.permitted)
    func whichOperation(driver: DriverKind) async throws { try await happens(WhichOperation.pitfall, driver) }

    // I4.1 does not hold.
    @Test("context-not-first-field: the cast finds no receive and no number", arguments: DriverKind.permitted)
    func contextNotFirstField(driver: DriverKind) async throws {
        try await happens(ContextNotFirstField.pitfall, driver)
    }

    // I4.2 does not hold.
    @Test("freed-with-io-pending: the late packet's touch ends the process", arguments: DriverKind.permitted)
    func freedWithIOPending(driver: DriverKind) async throws {
        try await happens(FreedWithIOPending.pitfall, driver)
    }

    // I4.2, I4.3 does not hold.
    @Test(
        "count-after-post: the count falls below 0, and the context is released, while a post is under way",
        arguments: DriverKind.permitted)
    func countAfterPost(driver: DriverKind) async throws { try await happens(CountAfterPost.pitfall, driver) }

    // I4.3 does not hold.
    @Test("double-release: two workers release one context")
    func doubleRelease() async throws { try await happens(DoubleRelease.pitfall, .epoll) }

    // I4.4 does not hold.
    @Test("close-notified-twice: two failed receives announce one end twice", arguments: DriverKind.permitted)
    func closeNotifiedTwice(driver: DriverKind) async throws {
        try await happens(CloseNotifiedTwice.pitfall, driver)
    }

    // I4.2 does not hold.
    @Test(
        "post-after-release: the second read is posted on the next client's context",
        arguments: DriverKind.permitted)
    func postAfterRelease(driver: DriverKind) async throws {
        try await happens(
            PostAfterRelease.pitfall, driver,
            "the second read was posted on a context that the next client had got meanwhile")
    }

    // I4.3 does not hold.
    @Test(
        "completion-before-call-returns: the worker finds a context without an owner",
        arguments: DriverKind.permitted)
    func completionBeforeCallReturns(driver: DriverKind) async throws {
        try await happens(CompletionBeforeCallReturns.pitfall, driver)
    }

    // I4.3 does not hold.
    @Test(
        "failed-post-leaks-buffer: 100 posts fail, and 100 contexts are lost", arguments: DriverKind.permitted
    )
    func failedPostLeaksBuffer(driver: DriverKind) async throws {
        try await happens(FailedPostLeaksBuffer.pitfall, driver)
    }

    @Test(
        "kernel-writes-to-new-owner: the bytes are written over the new owner's",
        arguments: DriverKind.permitted)
    func kernelWritesToNewOwner(driver: DriverKind) async throws {
        try await happens(KernelWritesToNewOwner.pitfall, driver)
    }

    // I4.2 does not hold.
    @Test(
        "cancel-is-only-a-request: a packet comes with a context that is somebody else's by then",
        arguments: DriverKind.permitted)
    func cancelIsOnlyARequest(driver: DriverKind) async throws {
        try await happens(CancelIsOnlyARequest.pitfall, driver)
    }

    @Test(
        "cancelled-but-completed: five bytes that had come are thrown away", arguments: DriverKind.permitted)
    func cancelledButCompleted(driver: DriverKind) async throws {
        try await happens(CancelledButCompleted.pitfall, driver)
    }

    @Test(
        "cancel-found-nothing: a packet comes after nothing was found to cancel",
        arguments: DriverKind.permitted)
    func cancelFoundNothing(driver: DriverKind) async throws {
        try await happens(CancelFoundNothing.pitfall, driver)
    }

    // I4.5 does not hold.
    @Test("free-list-duplicate: two clients get one context")
    func freeListDuplicate() async throws { try await happens(FreeListDuplicate.pitfall, .epoll) }

    // I4.5 does not hold.
    @Test("free-list-off-by-one: one too many is kept, and the wrong counter falls")
    func freeListOffByOne() async throws { try await happens(FreeListOffByOne.pitfall, .epoll) }

    @Test(
        "free-list-leaks-data: one client's password is read as the end of another's greeting",
        arguments: DriverKind.permitted)
    func freeListLeaksData(driver: DriverKind) async throws {
        try await happens(FreeListLeaksData.pitfall, driver)
    }

    // I4.5 does not hold.
    @Test("one-link-two-lists: the first list loses its tail")
    func oneLinkTwoLists() async throws { try await happens(OneLinkTwoLists.pitfall, .epoll) }

    // I4.5 does not hold.
    @Test(
        "memory-never-returns: 62 MiB stay after the peak",
        .disabled(if: isSanitized, "a sanitizer keeps freed memory back"))
    func memoryNeverReturns() async {
        await #expect(processExitsWith: .success) {
            inChild {
                let seen = try MemoryNeverReturns.pitfall.broken(.epoll)
                #expect(seen.happened, "\(seen.lines)")
            }
        }
    }

    // I4.6 does not hold.
    @Test("unlocked-context: of two updates one is lost")
    func unlockedContext() async throws { try await happens(UnlockedContext.pitfall, .epoll) }

    // I4.6 does not hold.
    @Test(
        "nested-context-locks: each of two workers waits for the other's lock",
        arguments: DriverKind.permitted)
    func nestedContextLocks(driver: DriverKind) async throws {
        try await happens(NestedContextLocks.pitfall, driver)
    }

    // I4.7 does not hold.
    @Test(
        "context-outside-callback: the next client hears what was meant for the last, and a walk passes somebody over",
        arguments: DriverKind.permitted)
    func contextOutsideCallback(driver: DriverKind) async throws {
        try await happens(ContextOutsideCallback.pitfall, driver)
    }

    // I4.6 does not hold.
    @Test("lock-copied: lock and copy are held at the same time")
    func lockCopied() async throws { try await happens(LockCopied.pitfall, .epoll) }

    // I4.7 does not hold.
    @Test("reused-identifier: the next client has the number, and gets the message")
    func reusedIdentifier() async {
        await #expect(processExitsWith: .success) { inChild { try happensAlone(ReusedIdentifier.pitfall) } }
    }

    @Test("handle-reused-while-closing: a late call lands on a stranger's connection")
    func handleReusedWhileClosing() async {
        await #expect(processExitsWith: .success) {
            inChild { try happensAlone(HandleReusedWhileClosing.pitfall) }
        }
    }

    @Test("closed-twice: the second close is a stranger's")
    func closedTwice() async {
        await #expect(processExitsWith: .success) { inChild { try happensAlone(ClosedTwice.pitfall) } }
    }

    // I4.4 does not hold.
    @Test(
        "error-code-dialects: of three voices of a reset one or two are recognised",
        arguments: DriverKind.permitted)
    func errorCodeDialects(driver: DriverKind) async throws {
        try await happens(ErrorCodeDialects.pitfall, driver)
    }

    // I4.4 does not hold.
    @Test(
        "zero-bytes-is-not-data: 1,000 packets with nothing in them, and no end",
        arguments: DriverKind.permitted)
    func zeroBytesIsNotData(driver: DriverKind) async throws {
        try await happens(ZeroBytesIsNotData.pitfall, driver)
    }

    // I4.4 does not hold.
    @Test("zero-bytes-with-error: a reset is taken for an orderly end", arguments: DriverKind.permitted)
    func zeroBytesWithError(driver: DriverKind) async throws {
        try await happens(ZeroBytesWithError.pitfall, driver, "a client reset its connection: ended")
    }

    @Test(
        "dead-peer-unnoticed: nothing ever comes of a peer that lost its cable",
        arguments: DriverKind.permitted)
    func deadPeerUnnoticed(driver: DriverKind) async throws {
        try await happens(DeadPeerUnnoticed.pitfall, driver)
    }

    @Test(
        "probe-that-proves-nothing: five sends of nothing succeed to a dead peer",
        arguments: DriverKind.permitted)
    func probeThatProvesNothing(driver: DriverKind) async throws {
        try await happens(ProbeThatProvesNothing.pitfall, driver)
    }

    // I4.8 does not hold.
    @Test(
        "pause-judges-the-innocent: the sweep ends eight clients whose bytes lie in the system",
        arguments: DriverKind.permitted)
    func pauseJudgesTheInnocent(driver: DriverKind) async throws {
        try await happens(
            PauseJudgesTheInnocent.pitfall, driver,
            "it goes on: 8 were ended for their silence, 0 were answered")
    }

    // I4.9 does not hold.
    @Test(
        "closed-window-is-no-dead-peer: a client that does not read for two seconds is reset, and loses bytes",
        arguments: DriverKind.permitted)
    func closedWindowIsNoDeadPeer(driver: DriverKind) async throws {
        try await happens(ClosedWindow.pitfall, driver)
    }

    // The same as `freed-with-io-pending`, without a process in between that says how it ended.
    @Test("freed-with-io-pending: the touch is a real access violation")
    func freedWithIOPendingCrashes() async {
        await #expect(processExitsWith: .failure) { try FreedWithIOPending.crash(.epoll) }
    }
}
