import Stage

/// The mistakes that this chapter is about, each of them runnable.
public enum Chapter02 {
    /// All of them, in the order in which the tutorial tells them.
    public static let pitfalls: [Pitfall] = workerPitfalls + ioPitfalls
}
