import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter09 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        ComputationOnIOWorker.pitfall,
        UnboundedJobs.pitfall,
        OneClientFillsTheQueue.pitfall,
        ReplyToTheDeparted.pitfall,
        ShrinkingThePool.pitfall,
        UIFromWorker.pitfall,
        ScreenWaitsForTheEnd.pitfall,
    ]
}
