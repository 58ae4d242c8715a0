import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter13 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        LimitIsNoLock.pitfall,
        HopPerCompletion.pitfall,
        BlockingInATask.pitfall,
        ContinuationResumedTwice.pitfall,
        ContinuationNeverResumed.pitfall,
        CancelledTaskLosesBytes.pitfall,
        BufferOutlivesItsAwait.pitfall,
        InterleavedAwaits.pitfall,
        TaskPerMessage.pitfall,
        SlowConsumer.pitfall,
        ShutdownWaitsForEver.pitfall,
    ]
}
