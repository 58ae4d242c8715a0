import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter10 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        StartNotAnnounced.pitfall,
        CancelNotAnnounced.pitfall,
        CloseWithCallbacksRunning.pitfall,
        WaitInsideCallback.pitfall,
        CallbackBlocksPool.pitfall,
        MessageLongerThanBuffer.pitfall,
    ]
}
