import Stage

/// The chapter's pitfalls.
public enum Chapter05 {
    /// All of them.
    public static let pitfalls: [Pitfall] = []
}
