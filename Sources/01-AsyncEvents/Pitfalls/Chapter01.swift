import Stage

/// The mistakes of chapter 01, each with the scenario that shows it and the one that shows its absence.
public enum Chapter01 {
    /// In the order in which the tutorial tells them.
    public static let pitfalls: [Pitfall] = [
        SharedOverlapped.pitfall,
        ShortLastRead.pitfall,
        WaitIndexOffByOne.pitfall,
        ResultBeforeCompletion.pitfall,
        APCNeedsAlertableWait.pitfall,
        OverlappedNotCleared.pitfall,
        EarlyTimer.pitfall,
        OffsetLowHalf.pitfall,
        EventPerRequestLimit.pitfall,
        EventOneWaiter.pitfall,
        APCStarvedByComputation.pitfall,
        ClosedStandardDescriptor.pitfall,
    ]
}
