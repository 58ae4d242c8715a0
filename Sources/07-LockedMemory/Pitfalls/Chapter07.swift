import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter07 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        LockedMemoryExhausted.pitfall,
        PageRounding.pitfall,
        ENOBUFSKillsConnection.pitfall,
        AnswerWaitsForIdle.pitfall,
        ZeroByteWakeIsNotEOF.pitfall,
        BlockingReadAfterWake.pitfall,
        ZeroByteReadLosesThroughput.pitfall,
        FixedMode.pitfall,
        ModeChangeKeepsPages.pitfall,
        ChangeOverIsNotTheEnd.pitfall,
    ]
}
