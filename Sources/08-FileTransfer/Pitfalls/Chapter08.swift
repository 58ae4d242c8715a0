import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter08 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        SendDuringFileTransfer.pitfall,
        OneFileAtATime.pitfall,
        Transmit2GBLimit.pitfall,
        HandshakeNeverAnswered.pitfall,
        FileOpenedExclusively.pitfall,
        AnnouncedSizeLies.pitfall,
        AbortLeavesMode.pitfall,
        PathEscape.pitfall,
        DiskFull.pitfall,
        OneAnnouncementKeepsTheDisk.pitfall,
        FileWriteBlocksWorker.pitfall,
    ]
}
