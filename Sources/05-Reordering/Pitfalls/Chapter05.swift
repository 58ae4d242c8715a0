import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter05 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        OutOfOrderReceive.pitfall,
        NumberAndPostNotAtomic.pitfall,
        CloseOvertakesData.pitfall,
        OutOfOrderSend.pitfall,
        ReorderGrowsWithoutBound.pitfall,
        OnePendingReadIsSlow.pitfall,
        SequenceWraps.pitfall,
        ReorderBufferLeak.pitfall,
        ReorderWindowUnlocked.pitfall,
        PartialSend.pitfall,
        SendsInterleave.pitfall,
        HubDropsFirstData.pitfall,
        LargeBufferForEachClient.pitfall,
        FreshBufferForEachRead.pitfall,
    ]
}
