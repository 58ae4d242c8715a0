import Stage

/// What goes wrong with accepts, in the order of the chapter.
public enum Chapter03 {
    /// Every pitfall of the chapter.
    public static let pitfalls: [Pitfall] = [
        AcceptOneAtATime.pitfall,
        AcceptsNotReplenished.pitfall,
        AcceptBurstExhaustsPool.pitfall,
        SilentClientHoldsAccept.pitfall,
        AcceptCompletesEmpty.pitfall,
        AcceptErrorKillsListener.pitfall,
        FirstDataDropped.pitfall,
        AcceptAddressBlock.pitfall,
        AcceptContextNotUpdated.pitfall,
        AcceptedSocketLeak.pitfall,
        PhantomPendingAccept.pitfall,
        SweepWalksUnlockedList.pitfall,
        InheritedDescriptor.pitfall,
        DrainWithoutABound.pitfall,
    ]
}
