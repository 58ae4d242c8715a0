import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter06 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        ChunkIsNotMessage.pitfall,
        HeaderSplit.pitfall,
        LengthLies.pitfall,
        EOFInsideFrame.pitfall,
        FramingByTwoWorkers.pitfall,
        TextWithoutTerminator.pitfall,
    ]
}
