import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter04 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        WhichOperation.pitfall,
        ContextNotFirstField.pitfall,
        FreedWithIOPending.pitfall,
        CountAfterPost.pitfall,
        DoubleRelease.pitfall,
        CloseNotifiedTwice.pitfall,
        PostAfterRelease.pitfall,
        CompletionBeforeCallReturns.pitfall,
        FailedPostLeaksBuffer.pitfall,
        KernelWritesToNewOwner.pitfall,
        CancelIsOnlyARequest.pitfall,
        CancelledButCompleted.pitfall,
        CancelFoundNothing.pitfall,
        FreeListDuplicate.pitfall,
        FreeListOffByOne.pitfall,
        FreeListLeaksData.pitfall,
        OneLinkTwoLists.pitfall,
        MemoryNeverReturns.pitfall,
        UnlockedContext.pitfall,
        NestedContextLocks.pitfall,
        ContextOutsideCallback.pitfall,
        LockCopied.pitfall,
        ReusedIdentifier.pitfall,
        HandleReusedWhileClosing.pitfall,
        ClosedTwice.pitfall,
        ErrorCodeDialects.pitfall,
        ZeroBytesIsNotData.pitfall,
        ZeroBytesWithError.pitfall,
        DeadPeerUnnoticed.pitfall,
        ProbeThatProvesNothing.pitfall,
        PauseJudgesTheInnocent.pitfall,
        ClosedWindow.pitfall,
    ]
}
