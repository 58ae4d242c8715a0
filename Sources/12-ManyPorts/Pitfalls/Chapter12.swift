import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter12 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        OnePortContention.pitfall,
        UnbalancedPorts.pitfall,
        MovedWithPacketQueued.pitfall,
    ]
}
